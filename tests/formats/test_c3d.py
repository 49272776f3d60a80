from __future__ import annotations

import numpy as np
import pytest

from cpnpose.formats.c3d import write_c3d


def test_ezc3d_reads_what_was_written(tmp_path, header, clip):
    ezc3d = pytest.importorskip("ezc3d")
    path = tmp_path / "walk.c3d"
    assert write_c3d(header, clip, path, person=3) == [path]
    assert path.stat().st_size % 512 == 0
    c3d = ezc3d.c3d(str(path))
    points = c3d["parameters"]["POINT"]
    assert points["LABELS"]["value"] == list(header.keypoint_names)
    assert points["UNITS"]["value"] == ["px"]
    assert points["FRAMES"]["value"][0] == len(clip)
    assert c3d["header"]["points"]["frame_rate"] == pytest.approx(30000 / 1001, abs=1e-4)
    assert (c3d["header"]["points"]["first_frame"], c3d["header"]["points"]["last_frame"]) == (0, len(clip) - 1)
    data = c3d["data"]["points"]
    assert data.shape == (4, 17, len(clip))
    for number, result in enumerate(clip):
        at = np.flatnonzero(result.poses.track_ids == 3)
        if len(at) == 0:
            assert np.isnan(data[:3, :, number]).all()
            continue
        np.testing.assert_array_equal(data[:2, :, number].T.astype(np.float32), result.poses.keypoints_xy[at[0]])
        assert (data[2, :, number] == 0).all()


def test_missing_keypoints_and_a_file_per_person(tmp_path, header, rich_clip):
    ezc3d = pytest.importorskip("ezc3d")
    paths = write_c3d(header, rich_clip, tmp_path / "walk.c3d")
    assert [path.name for path in paths] == ["walk_id1.c3d", "walk_id3.c3d"]
    data = ezc3d.c3d(str(paths[1]))["data"]["points"]
    assert np.isnan(data[0, 4, 0])
    assert np.isfinite(data[:3, 5, 0]).all()


def test_more_frames_than_sixteen_bits(tmp_path, header, make_poses, make_result):
    ezc3d = pytest.importorskip("ezc3d")
    pose, nobody = make_poses([1]), make_poses([])
    count = 65_600
    frames = (make_result(index, pose if index == count - 1 else nobody) for index in range(count))
    write_c3d(header, frames, tmp_path / "long.c3d")
    data = ezc3d.c3d(str(tmp_path / "long.c3d"))["data"]["points"]
    assert data.shape == (4, 17, count)
    np.testing.assert_array_equal(data[:2, :, -1].T.astype(np.float32), pose.keypoints_xy[0])
