from __future__ import annotations

import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.formats.videopose3d import fill_gaps, write_videopose3d


def test_numpy_reads_it_as_videopose3d_does(tmp_path, header, clip):
    path = tmp_path / "data_2d_custom_clip.npz"
    write_videopose3d(header, clip, path, person=3)
    archive = np.load(path, allow_pickle=True)
    metadata = archive["metadata"].item()
    assert metadata["layout_name"] == "coco"
    assert metadata["num_joints"] == 17
    assert metadata["keypoints_symmetry"] == [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]
    assert metadata["video_metadata"]["clip"] == {"w": 1280, "h": 720, "fps": pytest.approx(29.97, abs=1e-3)}
    positions = archive["positions_2d"].item()
    (keypoints,) = positions["clip"]["custom"]
    assert keypoints.dtype == np.float32
    assert keypoints.shape == (5, 17, 2)
    first, third, last = (clip[0].poses.keypoints_xy[1], clip[2].poses.keypoints_xy[0], clip[4].poses.keypoints_xy[0])
    np.testing.assert_array_equal(keypoints[[0, 2, 4]], [first, third, last])
    np.testing.assert_allclose(keypoints[1], (first + third) / 2, rtol=1e-5)
    np.testing.assert_allclose(keypoints[3], (third + last) / 2, rtol=1e-5)


def test_several_people_are_several_subjects(tmp_path, header, clip):
    write_videopose3d(header, clip, tmp_path / "out.npz")
    positions = np.load(tmp_path / "out.npz", allow_pickle=True)["positions_2d"].item()
    assert list(positions) == ["clip_id1", "clip_id3"]
    assert all(len(subject["custom"][0]) == len(clip) for subject in positions.values())


def test_ends_are_held_and_never_seen_is_zero():
    track = np.full((4, 17, 3), np.nan, np.float32)
    track[1, 0] = (10, 20, 1)
    filled = fill_gaps(track)
    np.testing.assert_array_equal(filled[:, 0], [[10, 20]] * 4)
    assert (filled[:, 1:] == 0).all()


def test_nobody_is_an_error_and_no_file(tmp_path, header, clip):
    with pytest.raises(InputError, match="nobody"):
        write_videopose3d(header, clip[1:2], tmp_path / "out.npz")
    assert list(tmp_path.iterdir()) == []
