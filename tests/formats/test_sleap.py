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


def test_sleaps_own_library_reads_it(tmp_path, header, clip):
    sleap_io = pytest.importorskip("sleap_io")
    write_sleap(header, clip, tmp_path / "out.csv")
    labels = sleap_io.load_file(str(tmp_path / "out.csv"))
    assert sorted(track.name for track in labels.tracks) == ["track_1", "track_3"]
    nodes = labels.skeletons[0].node_names
    assert sorted(nodes) == sorted(header.keypoint_names)
    order = [header.keypoint_names.index(name) for name in nodes]
    frames = {frame.frame_idx: frame for frame in labels}
    assert sorted(frames) == [0, 2, 3, 4]
    for result in clip:
        if len(result.poses) == 0:
            continue
        read = {instance.track.name: instance for instance in frames[result.frame.index].instances if instance.track}
        for row, identity in enumerate(result.poses.track_ids):
            if identity > 0:
                points = read[f"track_{identity}"].numpy()
                np.testing.assert_allclose(points, result.poses.keypoints_xy[row][order], atol=5.1e-3)
