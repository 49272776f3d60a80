from __future__ import annotations

import numpy as np
import pytest

from cpnpose.formats.sleap import write_sleap


def test_pandas_reads_a_row_per_person(tmp_path, header, rich_clip):
    pandas = pytest.importorskip("pandas")
    write_sleap(header, rich_clip, tmp_path / "out.csv")
    table = pandas.read_csv(tmp_path / "out.csv")
    assert list(table.columns[:6]) == ["track", "frame_idx", "instance.score", "nose.x", "nose.y", "nose.score"]
    assert table["frame_idx"].tolist() == [0, 0, 2, 2, 3]
    assert table["track"].fillna("").tolist() == ["track_1", "track_3", "track_3", "", "track_1"]
    poses = rich_clip[0].poses
    for number, name in enumerate(header.keypoint_names):
        read = table.loc[1, [f"{name}.x", f"{name}.y", f"{name}.score"]].to_numpy(float)
        expected = np.array([*poses.keypoints_xy[1, number], poses.keypoint_scores[1, number]])
        np.testing.assert_allclose(read, np.where(np.isfinite(expected), expected, np.nan), atol=5.1e-3)
    np.testing.assert_allclose(table["instance.score"][:2], poses.scores, atol=5.1e-5)
