from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cpnpose.pipeline.follow import as_estimated
from cpnpose.pipeline.repair import GROUPS, SwapOptions, repair_swaps
from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, Frame, FrameResult, Poses

HEIGHT = 300.0
SPREAD = {"front": (0.08, 0.05), "half": (0.03, 0.6), "side": (0.0, 1.0)}
"""Seen from: half distance of the sides in sizes, and how much of the swing of the limbs shows."""


def walker(time_s: float, view: str) -> np.ndarray:
    """(17, 2): limbs swing about 0.9 times a second; seen from the side left and right pass each other."""
    apart, swing = SPREAD[view]
    side = np.array([1, -1]) * apart
    phase = 2 * math.pi * 0.9 * time_s + np.array([0, math.pi])
    pose = np.zeros((17, 2))

    def hang(child: slice, parent: slice, length: float, turn: np.ndarray) -> None:
        pose[child] = pose[parent] + length * np.stack([np.sin(turn), np.cos(turn)], axis=1)

    pose[0] = 0.03, -0.43
    pose[1:3] = np.stack([0.02 + 0.2 * side, [-0.45, -0.45]], axis=1)
    pose[3:5] = np.stack([0.4 * side, [-0.44, -0.44]], axis=1)
    pose[5:7] = np.stack([1.2 * side, [-0.32, -0.32]], axis=1)
    pose[11:13, 0] = 0.8 * side
    thigh, arm = swing * 0.45 * np.sin(phase), -swing * 0.4 * np.sin(phase)
    hang(slice(13, 15), slice(11, 13), 0.23, thigh)
    hang(slice(15, 17), slice(13, 15), 0.23, thigh - swing * 0.2 * (1 + np.cos(phase)))
    hang(slice(7, 9), slice(5, 7), 0.15, arm)
    hang(slice(9, 11), slice(7, 9), 0.14, arm + 0.3 * swing)
    return pose * HEIGHT + (300 + (0 if view == "front" else 0.7 * HEIGHT * time_s), 400)


def exchange(points: np.ndarray, groups: list[int]) -> np.ndarray:
    result = points.copy()
    pairs = GROUPS[groups].reshape(-1, 2)
    result[pairs] = points[pairs[:, ::-1]]
    return result


def frame(index: int, fps: float, points: np.ndarray, track_id: int = 1) -> FrameResult:
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    poses = Poses(
        keypoints_xy=points[None].astype(np.float32),
        keypoint_scores=np.linspace(0.9, 1.2, 17, dtype=np.float32)[None],
        scores=np.ones(1, np.float32),
        boxes_xyxy=box[None].astype(np.float32),
        box_scores=np.ones(1, np.float32),
        track_ids=np.array([track_id], np.int64),
    )
    return FrameResult(Frame(index, index, Fraction(1, int(fps)), index / fps, np.zeros((0, 0, 3), np.uint8)), poses)


SWAPS = {20: [2, 3], 45: [3], 46: [3], 47: [3], 80: [0, 1, 2, 3], 81: [0, 1, 2, 3], 110: [2], 140: [3]} | {
    index: [2, 3] for index in range(170, 178)
}


def clip(view: str, noise: float, swaps: dict[int, list[int]]) -> tuple[list[FrameResult], np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.array([walker(index / 30, view) for index in range(240)])
    seen = truth + rng.normal(0, noise * HEIGHT, truth.shape)
    return [frame(i, 30, exchange(points, swaps.get(i, []))) for i, points in enumerate(seen)], truth


def flags(results: list[FrameResult]) -> np.ndarray:
    return np.array([np.zeros(17, np.uint8) if r.poses.flags is None else r.poses.flags[0] for r in results])


def wrong(results: list[FrameResult], truth: np.ndarray) -> int:
    places = np.array([r.poses.keypoints_xy[0] for r in results])
    return int((np.linalg.norm(places - truth, axis=-1) > 0.08 * HEIGHT).sum())


@pytest.mark.parametrize("noise", [0.004, 0.012])
@pytest.mark.parametrize("view", SPREAD)
def test_swaps_are_found_and_nothing_else_is_broken(view: str, noise: float) -> None:
    frames, truth = clip(view, noise, SWAPS)
    before = wrong(frames, truth)
    repaired = list(repair_swaps(frames))
    assert before >= 30
    assert wrong(repaired, truth) <= 0.03 * before
    clean, _ = clip(view, noise, {})
    assert wrong(list(repair_swaps(clean)), truth) <= 2


@pytest.mark.parametrize("view", ["half", "side"])
def test_the_speed_between_a_frame_and_its_repetition_is_hardly_believed(view: str) -> None:
    """Every other picture comes twice, a millisecond apart: what the network makes of both differs by noise alone."""
    rng = np.random.default_rng(1)
    times = [index / 30 + again for index in range(240) for again in ((0.0, 0.001) if index % 2 == 0 else (0.0,))]
    truth = np.array([walker(time_s, view) for time_s in times])
    seen = truth + rng.normal(0, 0.008 * HEIGHT, truth.shape)
    swapped = {index for first in (20, 60, 100, 151) for index in range(first, first + 7)}
    frames = []
    for number, (time_s, points) in enumerate(zip(times, seen, strict=True)):
        own = exchange(points, [0, 1, 2, 3] if int(time_s * 30 + 1e-6) in swapped else [])
        plain = frame(number, 30, own)
        frames.append(replace(plain, frame=replace(plain.frame, time_s=time_s)))
    assert wrong(list(repair_swaps(frames)), truth) <= 0.35 * wrong(frames, truth)


def test_flags_scores_and_raw_values_of_a_swap() -> None:
    frames, _ = clip("front", 0.003, {50: [2, 3]})
    repaired = list(repair_swaps(frames))
    expected = np.zeros((240, 17), np.uint8)
    expected[50, GROUPS[[2, 3]].ravel()] = FLAG_SWAPPED
    np.testing.assert_array_equal(flags(repaired), expected)
    old, new = frames[50].poses, repaired[50].poses
    assert new.raw_keypoints_xy is not None
    np.testing.assert_array_equal(new.raw_keypoints_xy, old.keypoints_xy)
    np.testing.assert_array_equal(new.keypoint_scores[0], exchange(old.keypoint_scores[0][:, None], [2, 3])[:, 0])
    np.testing.assert_array_equal(new.keypoints_xy[0], exchange(old.keypoints_xy[0], [2, 3]))
    assert repaired[49].poses is frames[49].poses
    undone = as_estimated(new)
    np.testing.assert_array_equal(undone.keypoints_xy, old.keypoints_xy)
    np.testing.assert_array_equal(undone.keypoint_scores, old.keypoint_scores)


@pytest.mark.parametrize(("score", "found"), [(0.5, False), (0.53, False), (0.6, True)])
def test_joints_that_are_hardly_seen_on_one_side_are_no_proof_of_a_swap(score: float, found: bool) -> None:
    """A hidden leg is often taken for the other one, which is seen well and stays as it is."""
    frames, _ = clip("front", 0.003, {50: [3]})
    for result in frames:
        result.poses.keypoint_scores[0, [14, 16]] = score
    changed = np.flatnonzero(flags(list(repair_swaps(frames))).any(axis=1))
    assert changed.tolist() == [50] * found


def test_a_motion_from_where_joints_were_hardly_seen_proves_no_swap() -> None:
    """Wrong places of two frames in which nobody could see the legs say nothing of the frame after them either."""
    frames, _ = clip("front", 0.003, {50: [3]})
    for result in frames[50:52]:
        result.poses.keypoint_scores[0, 13:] = 0.5
    assert not flags(list(repair_swaps(frames))).any()


def test_older_flags_go_with_the_exchanged_joints() -> None:
    frames, _ = clip("front", 0.003, {50: [3]})
    before = np.zeros((1, 17), np.uint8)
    before[0, 15] = FLAG_FILLED
    frames[50] = replace(frames[50], poses=replace(frames[50].poses, flags=before))
    after = flags(list(repair_swaps(frames)))[50]
    assert after[13:].tolist() == [FLAG_SWAPPED, FLAG_SWAPPED, FLAG_SWAPPED, FLAG_SWAPPED | FLAG_FILLED]


def test_a_person_who_turned_round_stays_as_the_network_says() -> None:
    frames, _ = clip("front", 0.003, {index: [0, 1, 2, 3] for index in range(100, 240)})
    assert not flags(list(repair_swaps(frames))).any()


def test_look_ahead_is_bounded_and_people_are_apart() -> None:
    """An endless clip with two people: no more than the look-ahead waits, and swaps of one leave the other alone."""
    taken = 0

    def endless() -> Iterator[FrameResult]:
        nonlocal taken
        while True:
            one = frame(taken, 30, exchange(walker(taken / 30, "front"), [3] if taken == 40 else []))
            two = frame(taken, 30, walker(taken / 30, "front") + 500, track_id=2)
            order = [1, 0] if taken % 2 else [0, 1]
            both = {
                name: None if value is None else np.concatenate([value, getattr(two.poses, name)])[order]
                for name, value in vars(one.poses).items()
            }
            yield replace(one, poses=Poses(**both))
            taken += 1

    stream = repair_swaps(endless(), SwapOptions(look_ahead_s=0.5))
    for index in range(120):
        result = next(stream)
        assert result.frame.index == index
        assert taken - index <= 17
        if index != 40:
            assert result.poses.flags is None
        else:
            assert result.poses.flags is not None
            first = list(result.poses.track_ids).index(1)  # type: ignore[arg-type]
            np.testing.assert_array_equal(np.flatnonzero(result.poses.flags[first]), GROUPS[3].ravel())
            assert not result.poses.flags[1 - first].any()


def test_untracked_empty_and_interrupted_clips_pass() -> None:
    frames, _ = clip("side", 0.003, {})
    untracked = [replace(r, poses=replace(r.poses, track_ids=None)) for r in frames[:5]]
    assert list(repair_swaps(untracked)) == untracked
    assert list(repair_swaps([])) == []
    gaps = [r if i % 20 < 10 else replace(r, poses=Poses.empty()) for i, r in enumerate(frames)]
    assert [len(r.poses) for r in repair_swaps(gaps)] == [len(r.poses) for r in gaps]
    assert not flags([r for r in repair_swaps(gaps) if len(r.poses)]).any()


def test_keypoints_that_are_no_numbers_do_no_harm() -> None:
    frames, _ = clip("front", 0.003, {50: [2, 3]})
    for index in (20, 21, 70):
        frames[index].poses.keypoints_xy[0, [9, 13]] = np.nan
    assert list(np.flatnonzero(flags(list(repair_swaps(frames))).any(axis=1))) == [50]


def test_a_score_that_is_no_number_hides_no_later_exchange() -> None:
    seen, truth = clip("side", 0.003, {60: [3]})
    scores = np.full((1, 17), np.nan, np.float32)
    seen[20] = replace(seen[20], poses=replace(seen[20].poses, keypoint_scores=scores))
    repaired = list(repair_swaps(seen))[60].poses
    assert (repaired.flags[0, GROUPS[3].ravel()] == FLAG_SWAPPED).all()
    np.testing.assert_allclose(repaired.keypoints_xy[0, 13:], truth[60, 13:], atol=0.02 * HEIGHT)
