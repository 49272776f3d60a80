from __future__ import annotations

import numpy as np
import pytest

from cpnpose.pose.angles import ANGLE_NAMES, joint_angles
from cpnpose.pose.keypoints import FLIP_INDEX, KEYPOINT_NAMES
from cpnpose.pose.types import FLAG_FILLED


def pose(**points: tuple[float, float]) -> np.ndarray:
    result = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    for name, xy in points.items():
        result[0, KEYPOINT_NAMES.index(name)] = xy
    return result


def angle(name: str, points: np.ndarray, scores: np.ndarray | None = None) -> float:
    scores = np.ones((len(points), 17)) if scores is None else scores
    return float(joint_angles(points, scores)[0, ANGLE_NAMES.index(name)])


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 135.0, 180.0])
@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("left_elbow", ("left_shoulder", "left_elbow", "left_wrist")),
        ("right_elbow", ("right_shoulder", "right_elbow", "right_wrist")),
        ("left_shoulder", ("left_hip", "left_shoulder", "left_elbow")),
        ("right_shoulder", ("right_hip", "right_shoulder", "right_elbow")),
        ("left_hip", ("left_shoulder", "left_hip", "left_knee")),
        ("right_hip", ("right_shoulder", "right_hip", "right_knee")),
        ("left_knee", ("left_hip", "left_knee", "left_ankle")),
        ("right_knee", ("right_hip", "right_knee", "right_ankle")),
    ],
)
def test_known_angles(name: str, ends: tuple[str, str, str], degrees: float) -> None:
    turn = np.radians(degrees)
    points = pose(**{ends[0]: (40, 10), ends[1]: (10, 10), ends[2]: (10 + 20 * np.cos(turn), 10 + 20 * np.sin(turn))})
    assert angle(name, points) == pytest.approx(degrees, abs=1e-3)


@pytest.mark.parametrize(("shift", "degrees"), [(0.0, 0.0), (50.0, 45.0), (-50.0, -45.0)])
def test_trunk_lean_is_signed(shift: float, degrees: float) -> None:
    points = pose(
        left_hip=(60, 100), right_hip=(40, 100), left_shoulder=(70 + shift, 50), right_shoulder=(30 + shift, 50)
    )
    assert angle("trunk", points) == pytest.approx(degrees, abs=1e-4)


def test_low_score_and_lengthless_segments_give_nan_only_where_they_matter() -> None:
    points = np.random.default_rng(1).uniform(0, 100, (2, 17, 2))
    scores = np.ones((2, 17))
    scores[0, KEYPOINT_NAMES.index("left_wrist")] = 0.5
    points[1, KEYPOINT_NAMES.index("right_knee")] = points[1, KEYPOINT_NAMES.index("right_ankle")]
    missing = np.isnan(joint_angles(points, scores))
    assert [ANGLE_NAMES[i] for i in np.flatnonzero(missing[0])] == ["left_elbow"]
    assert [ANGLE_NAMES[i] for i in np.flatnonzero(missing[1])] == ["right_knee"]


def test_filled_keypoints_count() -> None:
    points = np.random.default_rng(1).uniform(0, 100, (1, 17, 2))
    scores, flags = np.ones((1, 17)), np.zeros((1, 17), np.uint8)
    scores[0, [KEYPOINT_NAMES.index("left_wrist"), KEYPOINT_NAMES.index("right_wrist")]] = 0.5
    flags[0, KEYPOINT_NAMES.index("left_wrist")] = FLAG_FILLED
    missing = np.isnan(joint_angles(points, scores, flags=flags))
    assert [ANGLE_NAMES[i] for i in np.flatnonzero(missing[0])] == ["right_elbow"]


def test_mirrored_person_has_mirrored_angles() -> None:
    points = np.random.default_rng(2).uniform(0, 100, (5, 17, 2))
    mirrored = points[:, list(FLIP_INDEX)] * (-1, 1)
    here, there = joint_angles(points, np.ones((5, 17))), joint_angles(mirrored, np.ones((5, 17)))
    np.testing.assert_allclose(here[:, [1, 0, 3, 2, 5, 4, 7, 6]], there[:, :8], rtol=1e-4)
    np.testing.assert_allclose(here[:, 8], -there[:, 8], rtol=1e-4)


def test_nobody_has_no_angles() -> None:
    result = joint_angles(np.zeros((0, 17, 2)), np.zeros((0, 17)))
    assert result.shape == (0, len(ANGLE_NAMES)) == (0, 9)
    assert result.dtype == np.float32
