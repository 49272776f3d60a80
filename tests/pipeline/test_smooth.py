from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpnpose.errors import OptionError
from cpnpose.pipeline.smooth import OneEuroFilter, OneEuroOptions
from cpnpose.pose.keypoints import FLIP_INDEX
from cpnpose.pose.types import Poses

RATES = [10.0, 30.0, 60.0]
WRIST = 9
KNEES, ANKLES = [13, 14], [15, 16]


def people(keypoints: np.ndarray, height: float, ids: list[int] | None = None) -> Poses:
    keypoints = np.asarray(keypoints, np.float32).reshape(-1, 17, 2)
    count = len(keypoints)
    return Poses(
        keypoints_xy=keypoints,
        keypoint_scores=np.full((count, 17), 1.25, np.float32),
        scores=np.ones(count, np.float32),
        boxes_xyxy=np.tile(np.array([0, 0, 0.4 * height, height], np.float32), (count, 1)),
        box_scores=np.ones(count, np.float32),
        track_ids=np.array(ids or range(1, count + 1), np.int64),
    )


def smooth(path: np.ndarray, fps: float, height: float, scores: np.ndarray | None = None) -> np.ndarray:
    """(T, 17, 2) through the filter with default settings; scores (17,), 1.25 where not given."""
    smoother = OneEuroFilter()
    smoothed = []
    for index, points in enumerate(path):
        poses = people(points, height)
        if scores is not None:
            poses.keypoint_scores[0] = scores
        smoothed.append(smoother.update(index / fps, poses).keypoints_xy[0])
    return np.array(smoothed, np.float64)


def weak_wrist(score: float) -> np.ndarray:
    scores = np.full(17, 1.25)
    scores[WRIST] = score
    return scores


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("noise", [0.01, 0.02])
@pytest.mark.parametrize("height", [80.0, 900.0])
def test_jitter_of_a_standing_person_is_at_least_halved(fps: float, noise: float, height: float) -> None:
    rng = np.random.default_rng(0)
    pose = rng.uniform(0, height, (17, 2))
    path = pose + rng.normal(0, noise * height, (int(10 * fps), 17, 2))
    result = smooth(path, fps, height)
    settled = slice(int(fps), None)
    assert np.diff(result[settled], axis=0).std() < 0.5 * np.diff(path[settled], axis=0).std()
    assert (result[settled] - pose).std() < 0.62 * (path[settled] - pose).std()
    np.testing.assert_allclose(result[settled].mean(axis=0), pose, atol=noise * height)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("length", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("height", [80.0, 900.0])
def test_lag_on_a_step_is_under_two_frames(fps: float, length: float, height: float) -> None:
    """The lag is the sum of what is still missing in each frame after the step, in frames; 0 for no smoothing."""
    start = int(2 * fps)
    path = np.zeros((int(5 * fps), 17, 2))
    path[start:] = length * height
    missing = 1 - smooth(path, fps, height)[start:] / (length * height)
    assert 0 <= missing.sum(axis=0).max() < 2
    assert missing[1].max() < 0.5


@pytest.mark.parametrize("fps", RATES)
def test_a_hardly_seen_joint_that_jumps_about_is_held(fps: float) -> None:
    """A hidden wrist is taken for something a fifth of the person away in every third of a second."""
    height, frames = 300.0, int(8 * fps)
    path = np.zeros((frames, 17, 2))
    wrong = np.arange(frames) % max(2, int(fps / 3)) == 1
    path[wrong, WRIST] = (0.2 * height, 0)
    result = smooth(path, fps, height, weak_wrist(0.76))[int(fps) :, WRIST, 0]
    assert np.diff(result).std() < 0.4 * np.diff(path[int(fps) :, WRIST, 0]).std()
    assert np.abs(result).max() < 0.7 * 0.2 * height


@pytest.mark.parametrize("fps", RATES)
def test_a_fast_move_of_a_hardly_seen_joint_is_not_held_back_for_long(fps: float) -> None:
    start, length = int(2 * fps), 90.0
    path = np.zeros((int(4 * fps), 17, 2))
    path[start:, WRIST, 0] = length
    missing = 1 - smooth(path, fps, 300.0, weak_wrist(0.76))[start:, WRIST, 0] / length
    assert np.argmax(missing < 0.1) / fps <= 0.3
    assert missing.sum() < 3.5  # frames


@pytest.mark.parametrize("fps", RATES)
def test_left_and_right_exchanged_for_a_moment_do_not_jump(fps: float) -> None:
    height, elbows = 300.0, [7, 8]
    pose = np.random.default_rng(2).uniform(0, height, (17, 2))
    pose[elbows] = [(100, 100), (180, 105)]
    path = np.tile(pose, (int(4 * fps), 1, 1))
    start, length = int(2 * fps), max(1, int(0.06 * fps))
    path[start : start + length, elbows] = path[start : start + length, elbows[::-1]]
    moved = np.abs(smooth(path, fps, height) - pose)[start:, elbows, 0]
    assert moved.max() < 0.5 * 80, "half of the way"
    path[start:, elbows] = pose[elbows[::-1]]  # somebody who has turned round
    left = np.abs(smooth(path, fps, height) - path)[start:, elbows, 0]
    assert left[int(0.5 * fps) :].max() < 0.1 * 80


@pytest.mark.parametrize("fps", RATES)
def test_a_body_whose_sides_are_exchanged_does_not_pass_through_its_middle(fps: float) -> None:
    height, left, right = 300.0, [5, 7, 11], [6, 8, 12]
    pose = np.random.default_rng(2).uniform(0, height, (17, 2))
    pose[left], pose[right] = [(100, 80), (90, 110), (110, 160)], [(170, 80), (180, 110), (160, 160)]
    turned = pose[list(FLIP_INDEX)]
    start, doubt = int(2 * fps), int(2 * fps) + max(1, int(0.2 * fps))
    path = np.tile(pose, (int(4 * fps), 1, 1))
    path[start:doubt] = turned
    np.testing.assert_allclose(smooth(path, fps, height)[:, left + right], path[:1, left + right].repeat(len(path), 0))
    path[start:] = turned
    result = smooth(path, fps, height)[:, left + right]
    stays, changes = (np.abs(result - other[left + right]).max(axis=(1, 2)) for other in (pose, turned))
    assert np.minimum(stays, changes).max() < 1e-3
    assert changes[int(2.45 * fps) :].max() < 1e-3


@pytest.mark.parametrize("fps", RATES)
def test_sides_that_were_seen_for_long_are_given_up_later(fps: float) -> None:
    """A person from behind, whose left and right the network exchanges for most of a second now and then."""
    height, sides = 300.0, [5, 6, 7, 8, 11, 12]
    pose = np.random.default_rng(2).uniform(0, height, (17, 2))
    pose[sides] = [(100, 80), (170, 80), (90, 110), (180, 110), (110, 160), (160, 160)]
    turned = pose[list(FLIP_INDEX)]
    path = np.tile(pose, (int(16 * fps), 1, 1))
    path[int(11 * fps) : int(11.9 * fps)] = turned
    assert np.abs(smooth(path, fps, height) - pose)[:, sides].max() < 1e-3
    path[int(11 * fps) :] = turned
    changes = np.abs(smooth(path, fps, height) - turned)[:, sides].max(axis=(1, 2))
    assert changes[int(11.9 * fps)] > 50
    assert changes[int(12.2 * fps) :].max() < 1e-3


def from_behind(height: float) -> np.ndarray:
    """(17, 2) somebody whose knees and ankles are close together."""
    pose = np.random.default_rng(2).uniform(0, height, (17, 2))
    pose[[5, 6, 7, 8, 11, 12]] = [(100, 80), (170, 80), (90, 110), (180, 110), (110, 160), (160, 160)]
    pose[KNEES + ANKLES] = [(129, 220), (141, 220), (130, 280), (140, 280)]
    return pose


@pytest.mark.parametrize("fps", RATES)
def test_legs_close_together_go_with_the_sides_of_the_body(fps: float) -> None:
    """Otherwise they cross each other wherever the network exchanges left and right for a moment."""
    pose = from_behind(300.0)
    turned = pose[list(FLIP_INDEX)]
    path = np.tile(pose, (int(16 * fps), 1, 1))
    path[int(11 * fps) : int(11.8 * fps)] = turned
    assert np.abs(smooth(path, fps, 300.0) - pose)[:, KNEES + ANKLES].max() < 1e-3
    path[int(11 * fps) :] = turned
    result = smooth(path, fps, 300.0)
    sides = np.sign(result[:, [5, *KNEES[:1], *ANKLES[:1]], 0] - result[:, [6, *KNEES[1:], *ANKLES[1:]], 0])
    assert (sides == sides[:, :1]).all()
    assert np.abs(result - turned)[int(12.2 * fps) :, KNEES + ANKLES].max() < 1e-3


@pytest.mark.parametrize("fps", RATES)
def test_an_arm_does_not_cross_the_back_while_the_sides_are_in_doubt(fps: float) -> None:
    """Shoulders are exchanged, then both on one side, while the right elbow is taken for the left one."""
    pose, right_elbow = from_behind(300.0), 8
    start, middle, end = (int(second * fps) for second in (11, 11.5, 11.9))
    path = np.tile(pose, (int(16 * fps), 1, 1))
    path[start:end, right_elbow] = pose[7] + (5, 0)
    alone = np.abs(smooth(path, fps, 300.0) - pose)[:, [5, 6, right_elbow]].max()
    path[start:middle, [5, 6]] = pose[[6, 5]]
    path[middle:end, 5] = pose[6]
    assert alone > 50
    assert np.abs(smooth(path, fps, 300.0) - pose)[:, [5, 6, right_elbow]].max() < 1
    path[start:, right_elbow] = pose[7] + (5, 0)
    path[end:, [5, 6]] = pose[[5, 6]]
    assert np.abs(smooth(path, fps, 300.0) - path)[int(12.7 * fps) :, right_elbow].max() < 10, "it has lasted"


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize(("speed", "stays"), [(0.0, True), (0.4, False)])
def test_ankles_of_somebody_who_walks_are_not_held_by_doubts(fps: float, speed: float, stays: bool) -> None:
    """The sides are in doubt for as long as they were exchanged."""
    height, left_ankle = 300.0, 15
    pose = from_behind(height)
    pose[ANKLES] = [(110, 280), (160, 280)]
    path = np.tile(pose, (int(11 * fps), 1, 1))
    path[..., 0] += speed * height * np.arange(len(path))[:, None] / fps
    exchange, back = int(8 * fps), int(8.6 * fps)
    path[exchange:back] = path[exchange:back, list(FLIP_INDEX)]
    path[back:, left_ankle, 0] += 45
    behind = (path - smooth(path, fps, height))[:, left_ankle, 0]
    assert bool(behind[int(9 * fps)] > 44) is stays
    assert np.abs(behind[int(9.7 * fps) :]).max() < 15


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("seconds", [2, 15])
def test_somebody_who_turns_round_is_followed_also_where_an_arm_is_hidden(fps: float, seconds: int) -> None:
    pose = from_behind(300.0)
    path = np.tile(pose, (int((seconds + 4) * fps), 1, 1))
    path[int(seconds * fps) :] = pose[list(FLIP_INDEX)]
    path[int(seconds * fps) :, 8] = path[-1, 7] + (-20, 10)
    left = np.abs(smooth(path, fps, 300.0) - path)[:, 5:].max(axis=(1, 2))
    assert left[int((seconds + 1.5) * fps) :].max() < 15
    assert left[-1] < 2


def test_joints_change_their_sides_together() -> None:
    """Also those that followed the others later."""
    height, fps, elbows, wrists = 300.0, 30, [7, 8], [9, 10]
    pose = np.random.default_rng(2).uniform(0, height, (17, 2))
    pose[[5, 6, 11, 12]] = [(100, 80), (170, 80), (110, 160), (160, 160)]
    pose[elbows], pose[wrists] = [(90, 110), (180, 110)], [(80, 150), (190, 150)]
    turned = pose[list(FLIP_INDEX)]
    path = np.tile(pose, (4 * fps, 1, 1))
    path[2 * fps :] = turned
    path[2 * fps : 2 * fps + 6, elbows] = pose[elbows]
    result = smooth(path, fps, height)
    left = np.sign(result[:, 5, 0] - result[:, 6, 0])
    for first, second in (elbows, wrists):
        sides = result[:, first, 0] - result[:, second, 0]
        assert (np.sign(sides) == left)[np.abs(sides) > 5].all()
    assert left[-1] > 0 > left[0]
    changed = int(np.argmax(left > 0))
    assert np.abs(result[changed + 1, elbows] - turned[elbows]).max() < 20


def test_ankles_that_pass_each_other_are_not_taken_for_a_body_turned_round() -> None:
    """Legs and arms cross in walking, at low frame rates between two frames; the shoulders stay where they are."""
    height, ankles = 300.0, [15, 16]
    pose = np.random.default_rng(2).uniform(0, height, (17, 2))
    pose[ankles] = [(100, 280), (160, 280)]
    path = np.tile(pose, (30, 1, 1))
    path[20:, ankles] = pose[ankles[::-1]]
    moved = np.abs(smooth(path, 10, height) - pose)[20:, ankles, 0]
    assert moved[0].min() > 5
    assert moved[4].min() > 50


@pytest.mark.parametrize(("apart", "damped"), [(0.03, False), (0.1, True)])
def test_only_a_jump_of_some_length_to_the_other_side_is_doubted(apart: float, damped: bool) -> None:
    """The eyes of somebody far away are so close together that to tremble is to be where the other one was."""
    height, left, right = 300.0, 1, 2
    path = np.zeros((12, 17, 2))
    path[6:, left, 0] = apart * height
    alone = smooth(path, 30, height)[6, left, 0]
    path[:, right, 0] = apart * height
    beside = smooth(path, 30, height)[6, left, 0]
    assert bool(beside < 0.8 * alone) is damped
    assert damped or beside == pytest.approx(alone)


def test_from_a_score_of_1_2_a_joint_is_believed_fully() -> None:
    path = np.zeros((12, 17, 2))
    path[6:, WRIST, 0] = 60
    full, enough, less = (smooth(path, 30, 300, weak_wrist(score))[6, WRIST, 0] for score in (1.5, 1.201, 1.1))
    assert enough == pytest.approx(full)
    assert less < full - 1


@pytest.mark.parametrize("fps", RATES)
def test_hardly_seen_joints_walk_along_with_the_others(fps: float) -> None:
    seconds = np.arange(int(4 * fps)) / fps
    path = np.zeros((len(seconds), 17, 2))
    path[..., 0] = (0.8 * 300 * seconds)[:, None]
    behind = (path - smooth(path, fps, 300, weak_wrist(0.68)))[int(2 * fps) :, WRIST, 0] / (0.8 * 300 / fps)
    assert behind.max() < 1  # frames


@pytest.mark.parametrize("fps", RATES)
def test_lag_of_a_walking_wrist_is_under_a_frame(fps: float) -> None:
    seconds = np.arange(int(4 * fps)) / fps
    path = np.zeros((len(seconds), 17, 2))
    path[..., 0] = (1.2 * 300 * seconds)[:, None]
    behind = (path - smooth(path, fps, 300))[int(2 * fps) :, :, 0] / (1.2 * 300 / fps)
    assert behind.max() < 1


@pytest.mark.parametrize("fps", [30.0, 60.0])
@pytest.mark.parametrize("height", [80.0, 900.0])
def test_a_swinging_wrist_is_not_left_behind(fps: float, height: float) -> None:
    """An arm that is waved once a second, a fifth of the person to each side."""
    seconds = np.arange(int(6 * fps)) / fps
    path = np.tile(np.random.default_rng(1).uniform(0, height, (17, 2)), (len(seconds), 1, 1))
    path[:, WRIST, 0] += 0.2 * height * np.sin(2 * np.pi * seconds)
    behind = np.abs(path - smooth(path, fps, height))[int(2 * fps) :, WRIST, 0]
    assert behind.mean() < 0.018 * height


def test_without_a_calm_speed_the_cutoff_is_the_papers() -> None:
    path = np.zeros((3, 17, 2))
    path[1:, :, 0] = 10.0
    smoother = OneEuroFilter(OneEuroOptions(beta=2.0, calm_speed=0.0))
    moved = [smoother.update(i / 30, people(points, 100.0)).keypoints_xy[0, 3, 0] for i, points in enumerate(path)]
    speed = 0.1 * 30 / (1 + 30 / (2 * np.pi))
    assert moved[1] == pytest.approx(10.0 / (1 + 30 / (2 * np.pi * (0.5 + 2.0 * speed))), abs=1e-4)


def test_real_timestamps_count_not_frames() -> None:
    """A held position sampled at uneven times: the filter must follow the formula with each step's own length."""
    times = np.array([0.0, 0.01, 0.11, 0.4, 0.41])
    values = np.array([0.0, 1.0, 0.5, 2.0, 0.0])
    options = OneEuroOptions(min_cutoff_hz=1.0, beta=2.0, calm_speed=0.3, derivative_cutoff_hz=1.5)
    smoother = OneEuroFilter(options)
    height = 100.0
    expected, speed, previous = 0.0, 0.0, 0.0
    for time_s, value in zip(times, values, strict=True):
        points = np.zeros((17, 2))
        points[:, 0] = value
        got = smoother.update(float(time_s), people(points, height)).keypoints_xy[0, 3, 0]
        if time_s > 0:
            step = time_s - previous
            tau = 1 / (2 * np.pi * 1.5)
            speed += ((value - expected) / step / height - speed) / (1 + tau / step)
            tau = 1 / (2 * np.pi * (1.0 + 2.0 * speed**2 / (abs(speed) + 0.3)))
            expected += (value - expected) / (1 + tau / step)
        previous = time_s
        assert got == pytest.approx(expected, abs=1e-5)


def test_raw_values_are_kept_and_older_raw_values_win() -> None:
    smoother = OneEuroFilter()
    first, second = np.zeros((17, 2)), np.full((17, 2), 5.0)
    smoother.update(0.0, people(first, 100))
    poses = people(second, 100)
    result = smoother.update(0.1, poses)
    assert result.raw_keypoints_xy is not None
    np.testing.assert_array_equal(result.raw_keypoints_xy, poses.keypoints_xy)
    assert (result.keypoints_xy < 5).all()
    older = np.full((1, 17, 2), 9.0, np.float32)
    again = OneEuroFilter().update(0.0, replace(poses, raw_keypoints_xy=older))
    assert again.raw_keypoints_xy is older


def test_people_are_smoothed_by_id_in_any_order() -> None:
    together, alone = OneEuroFilter(), OneEuroFilter()
    rng = np.random.default_rng(1)
    for step in range(20):
        points = rng.uniform(0, 300, (3, 17, 2)) / 50
        order = rng.permutation(3)
        result = together.update(step / 30, people(points[order], 200, [int(i) + 7 for i in order]))
        single = alone.update(step / 30, people(points[1], 200, [8]))
        np.testing.assert_allclose(result.keypoints_xy[list(order).index(1)], single.keypoints_xy[0], atol=1e-5)


def test_people_without_id_pass_and_state_ends_with_a_gap() -> None:
    smoother = OneEuroFilter()
    zero, far = np.zeros((17, 2)), np.full((17, 2), 50.0)
    smoother.update(0.0, people(zero, 100, [3]))
    passed = smoother.update(0.1, people(far, 100, [-1]))
    np.testing.assert_array_equal(passed.keypoints_xy, far[None])
    later = smoother.update(0.7, people(far, 100, [3]))
    np.testing.assert_array_equal(later.keypoints_xy, far[None])
    smoother.update(5.0, Poses.empty())
    assert len(smoother._ids) == 0
    untracked = replace(people(far, 100), track_ids=None)
    np.testing.assert_array_equal(smoother.update(6.0, untracked).keypoints_xy, far[None])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="min_cutoff_hz"):
        OneEuroOptions(min_cutoff_hz=0)
    with pytest.raises(OptionError, match="beta"):
        OneEuroOptions(beta=-1)


def test_keypoints_that_are_no_numbers_pass_and_leave_no_trace() -> None:
    smoother, clean = OneEuroFilter(), OneEuroFilter()
    for step in range(6):
        points = np.full((17, 2), float(step))
        broken = points.copy()
        if step == 3:
            broken[4] = np.nan
        result = smoother.update(step / 30, people(broken, 100)).keypoints_xy[0]
        expected = clean.update(step / 30, people(points, 100)).keypoints_xy[0]
        np.testing.assert_array_equal(np.isnan(result[4]), [step == 3] * 2)
        np.testing.assert_allclose(np.delete(result, 4, axis=0), np.delete(expected, 4, axis=0))
    assert np.isfinite(result).all()


@pytest.mark.parametrize("fps", RATES)
def test_a_keypoint_that_was_no_number_at_first_begins_where_it_is_seen(fps: float) -> None:
    path = np.random.default_rng(5).uniform(500, 700, (1, 17, 2)).repeat(8, axis=0)
    path[:4, WRIST] = np.nan
    result = smooth(path, fps, 200.0)
    assert np.isnan(result[:4, WRIST]).all()
    np.testing.assert_allclose(result[4:], path[4:], rtol=1e-6)
