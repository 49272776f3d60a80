from __future__ import annotations

import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.formats.deeplabcut import write_deeplabcut


def test_pandas_reads_the_four_header_rows(tmp_path, header, clip):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "out.csv"
    write_deeplabcut(header, clip, path)
    table = pandas.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    assert list(table.columns.names) == ["scorer", "individuals", "bodyparts", "coords"]
    assert table.columns.get_level_values("individuals").unique().tolist() == ["person1", "person3"]
    assert table.columns.get_level_values("bodyparts").unique().tolist() == list(header.keypoint_names)
    assert table.columns.get_level_values("coords").unique().tolist() == ["x", "y", "likelihood"]
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    for result in clip:
        row = table.loc[result.frame.index].to_numpy().reshape(2, 17, 3)
        for place, identity in enumerate((1, 3)):
            at = np.flatnonzero(result.poses.track_ids == identity)
            if len(at) == 0:
                assert np.isnan(row[place]).all()
                continue
            np.testing.assert_allclose(row[place, :, :2], result.poses.keypoints_xy[at[0]], atol=5.1e-3)
            np.testing.assert_allclose(row[place, :, 2], result.poses.keypoint_scores[at[0]], atol=5.1e-5)


def test_a_first_frame_without_anybody_stays(tmp_path, header, clip):
    pandas = pytest.importorskip("pandas")
    write_deeplabcut(header, [clip[1], *clip[3:], clip[1]], tmp_path / "out.csv")
    table = pandas.read_csv(tmp_path / "out.csv", header=[0, 1, 2, 3], index_col=0)
    assert table.index.tolist() == [1, 3, 4, 1]
    assert set(table.dtypes) == {np.dtype(np.float64)}
    assert table.iloc[[0, 3]].isna().all(axis=None)


def test_nobody_leaves_no_table(tmp_path, header, clip):
    """One without columns would lose its first row in pandas."""
    with pytest.raises(InputError, match="nobody with an id"):
        write_deeplabcut(header, [clip[1]], tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


def test_one_person_of_them(tmp_path, header, clip):
    write_deeplabcut(header, clip, tmp_path / "out.csv", person=3)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert set(lines[1].split(",")[1:]) == {"person3"}
    assert len(lines) == 4 + len(clip)


def test_movement_reads_it_as_deeplabcuts(tmp_path, header, clip):
    load_poses = pytest.importorskip("movement.io.load_poses")
    write_deeplabcut(header, clip, tmp_path / "out.csv")
    dataset = load_poses.from_dlc_file(tmp_path / "out.csv", fps=30)
    assert list(dataset.individuals.values) == ["person1", "person3"]
    assert list(dataset.keypoints.values) == list(header.keypoint_names)
    points = dataset.position.sel(individuals="person3").transpose("time", "keypoints", "space").values
    assert np.isnan(points[[1, 3]]).all()
    np.testing.assert_allclose(points[0], clip[0].poses.keypoints_xy[1], atol=5.1e-3)
