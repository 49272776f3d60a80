from __future__ import annotations

import numpy as np
import pytest

from cpnpose.pipeline.carry import CarriedBoxes, SceneCuts
from cpnpose.pose.types import FloatArray, Poses

PERSON = np.array([[100, 50, 160, 250]], np.float32)


def poses(
    boxes: FloatArray, scores: float | FloatArray = 1.3, shift: tuple[float, float] = (0, 0), zoom: float = 1.0
) -> Poses:
    """People whose joints fill the middle of their boxes, moved and zoomed about the box's centre."""
    random = np.random.default_rng(0).uniform(0.1, 0.9, (17, 2)).astype(np.float32)
    low, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
    points = low + size * (0.5 + (random - 0.5) * zoom) + np.array(shift, np.float32)
    keypoint_scores = np.broadcast_to(np.asarray(scores, np.float32), (len(boxes), 17)).copy()
    ones = np.ones(len(boxes), np.float32)
    return Poses(points.astype(np.float32), keypoint_scores, ones, boxes, 0.9 * ones)


def test_the_box_moves_with_the_joints() -> None:
    carried = CarriedBoxes(poses(PERSON))
    found = carried.next(poses(PERSON, shift=(12, -7)))
    np.testing.assert_allclose(found.boxes_xyxy, PERSON + np.array([12, -7, 12, -7]), atol=1e-3)
    assert found.scores.tolist() == pytest.approx([0.9])


def test_the_box_grows_with_the_person() -> None:
    found = CarriedBoxes(poses(PERSON)).next(poses(PERSON, zoom=1.2))
    np.testing.assert_allclose(found.boxes_xyxy, [[94, 30, 166, 270]], atol=4)


def test_a_joint_that_comes_or_goes_does_not_move_the_box() -> None:
    carried = CarriedBoxes(poses(PERSON))
    now = poses(PERSON)
    lowest = now.keypoints_xy[0, :, 1].argmax()
    now.keypoints_xy[0, lowest] = (900, 900)
    now.keypoint_scores[0, lowest] = 0.55
    np.testing.assert_allclose(carried.next(now).boxes_xyxy, PERSON, atol=1e-3)


def test_joints_that_are_fairly_sure_count_and_two_are_too_few() -> None:
    scores = np.full(17, 0.9)
    scores[:2] = 1.3
    for others, moved in ((0.9, 12), (0.5, 0)):
        scores[2:] = others
        carried = CarriedBoxes(poses(PERSON, scores=scores))
        found = carried.next(poses(PERSON, scores=scores, shift=(12, 0)))
        np.testing.assert_allclose(found.boxes_xyxy, PERSON + np.array([moved, 0, moved, 0]), atol=1e-3)


def test_without_sure_joints_the_box_stays() -> None:
    found = CarriedBoxes(poses(PERSON)).next(poses(PERSON, scores=0.5, shift=(500, 0)))
    np.testing.assert_array_equal(found.boxes_xyxy, PERSON)


def test_nobody() -> None:
    nobody = poses(PERSON).select(np.zeros(0, np.int64))
    carried = CarriedBoxes(nobody)
    assert len(carried.next(nobody)) == 0
    assert not carried.is_lost(nobody, (300, 300))


def test_lost_people() -> None:
    size = (300, 300)
    carried = CarriedBoxes(poses(PERSON))
    assert not carried.is_lost(poses(PERSON), size)
    assert not carried.is_lost(poses(PERSON, scores=1.1), size)
    assert carried.is_lost(poses(PERSON, scores=0.7), size)
    gone = poses(PERSON + np.array([250, 0, 250, 0], np.float32))
    assert carried.is_lost(gone, size)


def test_who_has_left_the_picture_over_any_side_is_lost() -> None:
    size, carried = (300, 600), CarriedBoxes(poses(PERSON))
    for shift, lost in (
        ((300, 0), False),
        ((480, 0), True),
        ((-140, 0), True),
        ((0, 160), True),
        ((0, -160), True),
    ):
        assert carried.is_lost(poses(PERSON + np.tile(np.array(shift, np.float32), 2)), size) is lost, shift


def test_who_is_half_hidden_is_not_lost() -> None:
    scores = np.where(np.arange(17) < 8, 1.3, 0.5)
    assert not CarriedBoxes(poses(PERSON)).is_lost(poses(PERSON, scores=scores), (300, 300))


def test_people_who_were_never_sure_are_not_lost() -> None:
    weak, weaker = poses(PERSON, scores=0.6), poses(PERSON, scores=0.53)
    assert not CarriedBoxes(weak).is_lost(weak, (300, 300))
    assert not CarriedBoxes(weak).is_lost(weaker, (300, 300))


def test_two_people_who_become_one_are_lost() -> None:
    apart = np.concatenate([PERSON, PERSON + np.array([80, 0, 80, 0], np.float32)])
    together = np.concatenate([PERSON, PERSON + 2])
    assert CarriedBoxes(poses(apart)).is_lost(poses(together), (300, 300))
    assert not CarriedBoxes(poses(together)).is_lost(poses(together), (300, 300))
    passing = np.concatenate([PERSON, PERSON + np.array([20, 0, 20, 0], np.float32)])
    assert not CarriedBoxes(poses(apart)).is_lost(poses(passing), (300, 300))


def test_scene_cuts() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 255, (90, 160, 3)).astype(np.uint8)
    cuts = SceneCuts()
    assert not cuts.is_cut(first)
    assert not cuts.is_cut(np.roll(first, 2, axis=1) // 2 + first // 2)
    assert cuts.is_cut(np.full_like(first, 250))
    assert not cuts.is_cut(np.full_like(first, 250))
    assert cuts.is_cut(np.full_like(first, 200))
