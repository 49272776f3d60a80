from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cpnpose.errors import OptionError
from cpnpose.pipeline.fill import FillOptions, fill_gaps, without_filled
from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, Frame, FrameResult, Poses


def result(time_s: float, people: dict[int, float], low: tuple[int, ...] = ()) -> FrameResult:
    """people: id -> value of all coordinates. ``low``: joints of all people that the network was not sure of."""
    count = len(people)
    values = np.array(list(people.values()), np.float32).reshape(count, 1, 1)
    scores = np.full((count, 17), 1.1, np.float32)
    scores[:, list(low)] = 0.55
    keypoints = np.broadcast_to(values, (count, 17, 2)).copy()
    keypoints[:, list(low)] = 999
    poses = Poses(
        keypoints_xy=keypoints,
        keypoint_scores=scores,
        scores=np.full(count, 1.1, np.float32),
        boxes_xyxy=np.broadcast_to(values[:, :, 0], (count, 4)).copy(),
        box_scores=np.full(count, 0.9, np.float32),
        track_ids=np.array(list(people), np.int64),
    )
    return FrameResult(Frame(0, 0, Fraction(1, 1000), time_s, np.zeros((0, 0, 3), np.uint8)), poses)


def test_missed_frames_are_filled_on_a_line_in_real_time() -> None:
    frames = [result(0.0, {1: 10, 2: 5}), result(0.05, {2: 5}), result(0.2, {2: 5}), result(0.25, {1: 20, 2: 5})]
    filled = list(fill_gaps(frames, FillOptions(max_gap_s=0.3)))
    assert [list(r.poses.track_ids) for r in filled] == [[1, 2], [2, 1], [2, 1], [1, 2]]  # type: ignore[arg-type]
    for index, expected in ((1, 12.0), (2, 18.0)):
        poses = filled[index].poses
        np.testing.assert_allclose(poses.keypoints_xy[1], expected, rtol=1e-6)
        np.testing.assert_allclose(poses.boxes_xyxy[1], expected, rtol=1e-6)
        assert poses.flags is not None
        assert (poses.flags[1] == FLAG_FILLED).all()
        assert not poses.flags[0].any()
        assert poses.box_scores[1] == 0
        back = without_filled(poses)
        np.testing.assert_array_equal(back.keypoints_xy, frames[index].poses.keypoints_xy)
    assert filled[0] is frames[0]
    assert filled[3] is frames[3]


def test_longer_gaps_and_ends_stay_open() -> None:
    frames = [result(0.0, {}), result(0.1, {1: 1}), result(0.3, {}), result(0.5, {1: 2}), result(0.6, {})]
    assert [len(r.poses) for r in fill_gaps(frames, FillOptions(max_gap_s=0.3))] == [0, 1, 0, 1, 0]
    assert [len(r.poses) for r in fill_gaps(frames, FillOptions(max_gap_s=0.4))] == [0, 1, 1, 1, 0]


def test_unsure_joints_are_replaced_and_the_rest_is_left() -> None:
    frames = [
        result(0.0, {1: 10}),
        result(0.1, {1: 11}, low=(9, 10)),
        result(0.2, {1: 30}, low=(9,)),
        result(0.3, {1: 40}),
    ]
    filled = list(fill_gaps(frames, FillOptions(max_gap_s=0.35)))
    poses = filled[1].poses
    assert poses.flags is not None
    np.testing.assert_allclose(poses.keypoints_xy[0, 9], 20.0, rtol=1e-6)
    np.testing.assert_allclose(poses.keypoints_xy[0, 10], 20.0, rtol=1e-6)
    np.testing.assert_allclose(poses.keypoints_xy[0, 8], 11.0)
    np.testing.assert_allclose(filled[2].poses.keypoints_xy[0, 9], 30.0, rtol=1e-6)
    assert list(np.flatnonzero(poses.flags[0])) == [9, 10]
    assert poses.raw_keypoints_xy is not None
    assert (poses.raw_keypoints_xy[0, [9, 10]] == 999).all()
    np.testing.assert_array_equal(poses.keypoint_scores, frames[1].poses.keypoint_scores)
    assert frames[1].poses.keypoints_xy[0, 9, 0] == 999


def test_joint_that_stays_unsure_for_too_long_is_not_touched() -> None:
    frames = [result(0.0, {1: 0}), *(result(i / 10, {1: i}, low=(9,)) for i in range(1, 6)), result(0.6, {1: 6})]
    assert all(r.poses.flags is None for r in fill_gaps(frames, FillOptions(max_gap_s=0.3)))
    assert sum(r.poses.flags is not None for r in fill_gaps(frames, FillOptions(max_gap_s=0.7))) == 5


def test_missed_frame_next_to_an_unsure_joint() -> None:
    """The added person's joint comes from where it was sure, not from the doubtful place beside the gap."""
    frames = [result(0.0, {1: 0}), result(0.1, {1: 1}, low=(9,)), result(0.2, {}), result(0.3, {1: 3})]
    filled = list(fill_gaps(frames, FillOptions(max_gap_s=0.4)))
    np.testing.assert_allclose(filled[2].poses.keypoints_xy[0], 2.0, rtol=1e-5)
    np.testing.assert_allclose(filled[1].poses.keypoints_xy[0], 1.0, rtol=1e-5)


@pytest.mark.parametrize(("score", "replaced"), [(0.65, True), (0.69, True), (0.71, False), (0.9, False)])
def test_a_joint_below_seven_tenths_counts_as_not_seen(score: float, replaced: bool) -> None:
    frames = [result(0.0, {1: 10}), result(0.1, {1: 20}, low=(9,)), result(0.2, {1: 30})]
    frames[1].poses.keypoint_scores[0, 9] = score
    place = list(fill_gaps(frames))[1].poses.keypoints_xy[0, 9, 0]
    assert place == pytest.approx(20 if replaced else 999, rel=1e-6)


def test_without_a_wish_gaps_up_to_three_tenths_of_a_second_are_filled() -> None:
    for gap_s, people in ((0.28, 1), (0.4, 0)):
        frames = [result(0.0, {1: 10}), result(0.1, {}), result(gap_s, {1: 20})]
        assert [len(r.poses) for r in fill_gaps(frames)] == [1, people, 1]


@pytest.mark.parametrize("fps", [10, 30, 50])
@pytest.mark.parametrize("longest_s", [0.3, 1.0])
def test_a_gap_of_exactly_the_longest_time_is_filled_anywhere_in_a_clip(fps: int, longest_s: float) -> None:
    steps = round(longest_s * fps)
    for first in range(0, 3000, 29):
        times = [round((first + step) / fps, 6) for step in range(steps + 1)]
        hidden = [result(time_s, {}) for time_s in times[1:-1]]
        frames = [result(times[0], {1: 10}, low=(3,)), *hidden, result(times[-1], {1: 20})]
        assert all(len(r.poses) == 1 for r in fill_gaps(frames, FillOptions(max_gap_s=longest_s))), first


def test_who_is_added_has_the_lower_scores_of_both_sides() -> None:
    frames = [result(0.0, {1: 10}), result(0.1, {}), result(0.2, {1: 20})]
    frames[0].poses.keypoint_scores[0, :8] = 0.8
    frames[2].poses.keypoint_scores[0, 8:] = 0.9
    for low, high in ((0, 2), (2, 0)):
        frames[low].poses.scores[0], frames[high].poses.scores[0] = 0.75, 1.1
        added = list(fill_gaps(frames))[1].poses
        assert added.scores[0] == pytest.approx(0.75)
        assert added.keypoint_scores[0].tolist() == pytest.approx([0.8] * 8 + [0.9] * 9)


def test_other_flags_of_a_replaced_joint_stay() -> None:
    frames = [result(0.0, {1: 10}), result(0.1, {1: 20}, low=(9,)), result(0.2, {1: 30})]
    flags = np.full((1, 17), FLAG_SWAPPED, np.uint8)
    frames[1] = replace(frames[1], poses=replace(frames[1].poses, flags=flags))
    after = list(fill_gaps(frames))[1].poses.flags
    assert after is not None
    assert after[0, 8:11].tolist() == [FLAG_SWAPPED, FLAG_SWAPPED | FLAG_FILLED, FLAG_SWAPPED]


def test_untracked_people_and_uncertainty_pass() -> None:
    frames = [result(i / 10, {1: i, -1: 50 + i} if i != 1 else {-1: 51}) for i in range(3)]
    frames = [
        replace(r, poses=replace(r.poses, uncertainty_px=np.ones((len(r.poses), 17), np.float32))) for r in frames
    ]
    filled = list(fill_gaps(frames))
    poses = filled[1].poses
    assert list(poses.track_ids) == [-1, 1]  # type: ignore[arg-type]
    assert poses.uncertainty_px is not None
    assert (poses.uncertainty_px[0] == 1).all()
    assert np.isnan(poses.uncertainty_px[1]).all()
    plain = [replace(r, poses=replace(r.poses, track_ids=None)) for r in frames]
    assert list(fill_gaps(plain)) == plain


def test_only_the_longest_gap_waits() -> None:
    taken = 0

    def endless() -> Iterator[FrameResult]:
        nonlocal taken
        while True:
            yield result(taken / 30, {1: taken} if taken % 3 else {})
            taken += 1

    stream = fill_gaps(endless(), FillOptions(max_gap_s=0.2))
    for index in range(200):
        value = next(stream)
        assert taken - index <= 8
        assert len(value.poses) == (0 if index == 0 else 1)
        if index:
            np.testing.assert_allclose(value.poses.keypoints_xy, index, rtol=1e-5)


def test_nothing_is_filled_with_zero_and_negative_is_refused() -> None:
    frames = [result(0.0, {1: 10}), result(0.1, {}), result(0.2, {1: 20})]
    assert list(fill_gaps(frames, FillOptions(max_gap_s=0.0))) == frames
    with pytest.raises(OptionError, match="from 0 up"):
        FillOptions(max_gap_s=-0.1)
