from __future__ import annotations

import json

import numpy as np
import pytest

from cpnpose.errors import OptionError, OutputError
from cpnpose.formats import ImageResult
from cpnpose.formats.openpose import write_openpose

ARMS = [f"{side}_{part}" for side in ("right", "left") for part in ("shoulder", "elbow", "wrist")]
LEGS = [f"{side}_{part}" for side in ("right", "left") for part in ("hip", "knee", "ankle")]
HEAD = ["right_eye", "left_eye", "right_ear", "left_ear"]
FEET = [f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")]
COCO_18_NAMES = ["nose", "neck", *ARMS, *LEGS, *HEAD]
BODY_25_NAMES = ["nose", "neck", *ARMS, "mid_hip", *LEGS, *HEAD, *FEET]


def expected_points(names, poses, row, keypoint_names):
    """The points by their names, one by one."""
    ours = {
        name: [*poses.keypoints_xy[row, number], poses.keypoint_scores[row, number]]
        for number, name in enumerate(keypoint_names)
    }
    for name, part in (("neck", "shoulder"), ("mid_hip", "hip")):
        left, right = np.array(ours[f"left_{part}"]), np.array(ours[f"right_{part}"])
        ours[name] = [*((left + right) / 2)[:2], min(left[2], right[2])]
    return np.array([ours.get(name, [0, 0, 0]) for name in names])


@pytest.mark.parametrize(("layout", "names"), [("COCO", COCO_18_NAMES), ("BODY_25", BODY_25_NAMES)])
def test_a_file_per_frame_with_points_in_openposes_order(tmp_path, header, clip, layout, names):
    folder = tmp_path / "out"
    write_openpose(header, clip, folder, layout=layout)
    files = sorted(file.name for file in folder.iterdir())
    assert files == [f"clip_{index:012d}_keypoints.json" for index in range(5)]
    for file, result in zip(files, clip, strict=True):
        document = json.loads((folder / file).read_text())
        assert document["version"] == 1.3
        assert len(document["people"]) == len(result.poses)
        for row, person in enumerate(document["people"]):
            points = np.array(person["pose_keypoints_2d"]).reshape(-1, 3)
            expected = expected_points(names, result.poses, row, header.keypoint_names)
            np.testing.assert_allclose(points, expected, atol=5.2e-3)
            assert person["person_id"] == [int(result.poses.track_ids[row])]
            for part in ("face", "hand_left", "hand_right"):
                assert person[f"{part}_keypoints_2d"] == person[f"{part}_keypoints_3d"] == []


def test_files_of_images_are_named_after_them(tmp_path, header, clip):
    names = ["IMG (1).jpg", "below/b.v2.png", "a:b.png", "img (1).png", "none"]
    files = ["IMG (1)", "below_b.v2", "a_b", "img (1)_000000000003", "none"]
    frames = [ImageResult(result.frame, result.poses, file=name) for result, name in zip(clip, names, strict=True)]
    write_openpose(header, frames, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}_keypoints.json" for name in files}
    for file, result in zip(files, clip, strict=True):
        people = json.loads((tmp_path / "out" / f"{file}_keypoints.json").read_text())["people"]
        assert [person["person_id"][0] for person in people] == result.poses.track_ids.tolist()
    write_openpose(header, frames, tmp_path / "out", overwrite=True)


def test_missing_keypoints_are_zero_and_so_is_their_midpoint(tmp_path, header, make_poses, make_result):
    poses = make_poses(1)
    poses.keypoints_xy[0, 5] = np.nan
    write_openpose(header, [make_result(0, poses)], tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    (person,) = json.loads(file.read_text())["people"]
    points = np.array(person["pose_keypoints_2d"]).reshape(18, 3)
    assert np.flatnonzero((points == 0).all(axis=1)).tolist() == [1, 5]
    assert person["person_id"] == [-1]


def test_unknown_layout(tmp_path, header, clip):
    with pytest.raises(OptionError, match="BODY_25"):
        write_openpose(header, clip, tmp_path / "out", layout="BODY_135")


def test_existing_folder(tmp_path, header, clip):
    write_openpose(header, clip, tmp_path / "out")
    with pytest.raises(OutputError, match="--overwrite"):
        write_openpose(header, clip, tmp_path / "out")
    write_openpose(header, clip[:2], tmp_path / "out", overwrite=True)
    assert len(list((tmp_path / "out").iterdir())) == 2
