from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpnpose.errors import OptionError
from cpnpose.pipeline import track_match
from cpnpose.pipeline.track import PoseTracker
from cpnpose.pipeline.track_match import assign, covered, iou, pose_likeness, within_reach
from cpnpose.pipeline.track_motion import BoxMotion
from cpnpose.pipeline.track_options import TrackerOptions
from cpnpose.pose.types import Poses

FRAME = (720, 1280)
RATES = [5.0, 30.0, 60.0]


def person(*centres: tuple[float, float], height: float = 200.0, score: float = 0.95) -> Poses:
    """People standing at the centres, box 80 by 200 around a fixed pose."""
    count = len(centres)
    shape = np.random.default_rng(7).uniform(-0.5, 0.5, (17, 2)) * (0.35, 0.9)
    middle = np.array(centres, np.float32).reshape(count, 2)
    half = np.array([0.2, 0.5]) * height
    return Poses(
        keypoints_xy=(middle[:, None] + shape[None] * height).astype(np.float32),
        keypoint_scores=np.full((count, 17), 1.1, np.float32),
        scores=np.full(count, 1.1 * score, np.float32),
        boxes_xyxy=np.concatenate([middle - half, middle + half], axis=1).astype(np.float32),
        box_scores=np.full(count, score, np.float32),
    )


def ids(poses: Poses) -> list[int]:
    assert poses.track_ids is not None
    assert poses.track_ids.dtype == np.int64
    return [int(i) for i in poses.track_ids]


def test_empty_frames_and_same_order() -> None:
    tracker = PoseTracker()
    assert ids(tracker.update(0.0, Poses.empty(), FRAME)) == []
    assert ids(tracker.update(0.1, person((200, 300), (600, 300)), FRAME)) == [1, 2]
    assert ids(tracker.update(0.2, person((602, 300), (203, 300)), FRAME)) == [2, 1]
    assert ids(tracker.update(0.3, Poses.empty(), FRAME)) == []
    assert ids(tracker.update(0.4, person((204, 300)), FRAME)) == [1]


def test_poses_pass_unchanged() -> None:
    poses = person((200, 300), (600, 300))
    tracked = PoseTracker().update(0.0, poses, FRAME)
    assert tracked.keypoints_xy is poses.keypoints_xy
    assert tracked.raw_keypoints_xy is None


def test_weak_poses_continue_people_and_start_none() -> None:
    tracker = PoseTracker()
    assert ids(tracker.update(0.0, person((200, 300), score=0.3), FRAME)) == [-1]
    assert ids(tracker.update(0.1, person((200, 300)), FRAME)) == [1]
    assert ids(tracker.update(0.2, person((203, 300), score=0.15), FRAME)) == [1]
    assert ids(tracker.update(0.3, person((900, 300), score=0.15), FRAME)) == [-1]
    assert ids(tracker.update(0.4, person((206, 300), score=0.05), FRAME)) == [-1]


@pytest.mark.parametrize("fps", RATES)
def test_id_comes_after_confirmation_in_seconds(fps: float) -> None:
    tracker = PoseTracker(TrackerOptions(confirm_s=0.4))
    tracker.update(0.0, Poses.empty(), FRAME)
    given = []
    for step in range(1, int(fps) + 1):
        given.append((step / fps, ids(tracker.update(step / fps, person((300, 300), score=0.7), FRAME))[0]))
    first = next(time for time, own in given if own == 1)
    assert first - 1 / fps == pytest.approx(0.4, abs=1 / fps + 1e-9)


def test_a_false_detection_of_one_frame_uses_no_id() -> None:
    tracker = PoseTracker()
    tracker.update(0.0, person((200, 300)), FRAME)
    assert ids(tracker.update(0.1, person((200, 300), (900, 300), score=0.7), FRAME)) == [1, -1]
    for step in range(2, 6):
        tracker.update(step / 10, person((200, 300)), FRAME)
    assert ids(tracker.update(0.6, person((200, 300), (600, 300)), FRAME)) == [1, 2]


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize(("away_s", "same"), [(1.8, True), (3.5, False)])
def test_memory_counts_seconds(fps: float, away_s: float, same: bool) -> None:
    tracker = PoseTracker(TrackerOptions(memory_s=2.5))
    steps = int(1.0 * fps)
    for step in range(steps):
        tracker.update(step / fps, person((300, 300)), FRAME)
    for step in range(steps, steps + int(away_s * fps)):
        tracker.update(step / fps, Poses.empty(), FRAME)
    back = (steps + int(away_s * fps)) / fps
    assert (ids(tracker.update(back, person((310, 300)), FRAME)) == [1]) is same
    assert len(tracker._ids) == 1


def test_a_person_far_from_where_motion_leads_is_somebody_else() -> None:
    tracker = PoseTracker()
    for step in range(30):
        tracker.update(step / 30, person((200, 300)), FRAME)
    assert ids(tracker.update(1.5, person((1100, 300)), FRAME)) == [2]


@pytest.mark.parametrize("fps", RATES)
def test_fast_runner_is_followed(fps: float) -> None:
    """Two and a half body heights per second: at 5 fps the boxes of following frames do not touch."""
    tracker = PoseTracker()
    seen = set()
    for step in range(int(2 * fps)):
        seen.update(ids(tracker.update(step / fps, person((100 + 500 * step / fps, 300)), FRAME)))
    assert seen == {1}


@pytest.mark.parametrize("fps", RATES)
def test_crossing_people_with_one_hidden(fps: float) -> None:
    tracker = PoseTracker()
    last: list[int] = []
    for step in range(int(4 * fps) + 1):
        left, right = 200 + 180 * step / fps, 920 - 180 * step / fps
        people = person((left, 300), (right, 310))
        if abs(left - right) < 50:
            people = people.select([1])
        last = ids(tracker.update(step / fps, people, FRAME))
        if len(people) == 2:
            assert last == [1, 2], step
    assert last == [1, 2]


def test_second_detection_of_the_same_person_gets_no_id() -> None:
    tracker = PoseTracker()
    tracker.update(0.0, person((300, 300)), FRAME)
    for step in range(1, 10):
        doubled = person((300, 300), (301, 301))
        assert sorted(ids(tracker.update(step / 10, doubled, FRAME))) == [-1, 1]


def test_leaving_over_the_edge_and_coming_back_there() -> None:
    tracker = PoseTracker()
    for step in range(30):
        x = 1100 + 150 * step / 30
        poses = person((x, 300))
        clipped = np.clip(poses.boxes_xyxy, 0, [1280, 720, 1280, 720]).astype(np.float32)
        assert ids(tracker.update(step / 30, replace(poses, boxes_xyxy=clipped), FRAME)) == [1]
    assert ids(tracker.update(2.5, replace(person((1240, 300)), boxes_xyxy=clipped), FRAME)) == [1]


def test_same_and_earlier_timestamps_do_no_harm() -> None:
    tracker = PoseTracker()
    for time_s in (0.0, 0.1, 0.1, 0.05, 0.2):
        assert ids(tracker.update(time_s, person((300, 300), (700, 300)), FRAME)) == [1, 2]


def test_same_calls_give_the_same_ids_and_memory_stays_bounded() -> None:
    rng = np.random.default_rng(0)
    frames = [person(*[tuple(c) for c in rng.uniform(100, 1000, (rng.integers(0, 6), 2))]) for _ in range(300)]
    first, second = PoseTracker(), PoseTracker()
    for step, poses in enumerate(frames):
        assert ids(first.update(step / 10, poses, FRAME)) == ids(second.update(step / 10, poses, FRAME))
        assert len(first._ids) == len(first._motion) <= 26 * 6


def test_negative_times_are_refused() -> None:
    with pytest.raises(OptionError, match="negative"):
        TrackerOptions(memory_s=-1)


def test_prediction_does_not_depend_on_the_number_of_steps() -> None:
    box = np.array([[100, 100, 180, 300]], np.float32)
    one, many = BoxMotion(), BoxMotion()
    for bank in (one, many):
        bank.add(box)
        bank.predict(0.1)
        bank.update(np.array([0]), box + 10, np.ones(1))
    one.predict(1.0)
    for _ in range(50):
        many.predict(0.02)
    np.testing.assert_allclose(one.position, many.position, rtol=1e-9)
    np.testing.assert_allclose(one._position_var, many._position_var, rtol=1e-9)
    assert one.position[0, 0] > 150


def test_assign_prefers_the_greatest_sum_and_never_makes_forbidden_pairs() -> None:
    likeness = np.array([[0.9, 0.8], [0.8, 0.1]])
    rows, columns = assign(likeness, np.ones((2, 2), bool))
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]
    rows, columns = assign(likeness, np.array([[True, False], [False, False]]))
    assert list(zip(rows, columns, strict=True)) == [(0, 0)]
    assert len(assign(np.zeros((0, 3)), np.zeros((0, 3), bool))[0]) == 0


def test_iou() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(iou(boxes, boxes)[0], [1, 1 / 3, 0])
    np.testing.assert_allclose(covered(boxes[:2], np.array([[0, 0, 2, 1], [0, 0, 9, 9]])), [[0.5, 1], [0.25, 1]])


def test_one_false_detection_does_not_take_the_id_of_a_lost_person() -> None:
    tracker = PoseTracker()
    for step in range(30):
        tracker.update(step / 30, person((300, 300)), FRAME)
    for step in range(30, 80):
        false = person((420, 330), height=180, score=0.6) if step == 55 else Poses.empty()
        assert 1 not in ids(tracker.update(step / 30, false, FRAME))
    found = [ids(tracker.update(step / 30, person((310, 300), score=0.8), FRAME))[0] for step in range(80, 90)]
    assert found == [1] * 10


def test_a_lost_person_found_some_way_off_gets_the_id_back_on_confirmation() -> None:
    tracker = PoseTracker()
    for step in range(30):
        tracker.update(step / 30, person((300, 300)), FRAME)
    for step in range(30, 75):
        tracker.update(step / 30, Poses.empty(), FRAME)
    found = [ids(tracker.update(step / 30, person((450, 300), score=0.7), FRAME))[0] for step in range(75, 90)]
    assert found[0] == -1
    assert found[-1] == 1
    assert set(found) == {-1, 1}


def test_keypoints_that_are_no_numbers_do_no_harm() -> None:
    tracker = PoseTracker()
    for step in range(5):
        poses = person((300, 300), (700, 300))
        poses.keypoints_xy[0, 3:5] = np.nan
        poses.keypoint_scores[0, 3] = np.nan
        assert ids(tracker.update(step / 10, poses, FRAME)) == [1, 2]


@pytest.mark.parametrize("fps", [10.0, *RATES])
def test_a_box_that_is_suddenly_cut_keeps_its_id(fps: float) -> None:
    """Somebody steps behind a table: the lower half of the box vanishes from one frame to the next, and comes back."""
    tracker = PoseTracker()
    for step in range(int(6 * fps)):
        poses = person((300, 300))
        if int(2 * fps) <= step < int(4 * fps):
            poses.boxes_xyxy[0, 3] -= 110
            poses.keypoints_xy[0, 11:] += np.random.default_rng(step).normal(0, 20, (6, 2))
            poses.keypoint_scores[0, 11:] = 0.55
        assert ids(tracker.update(step / fps, poses, FRAME)) == [1], step


@pytest.mark.parametrize("fps", RATES)
def test_a_person_who_is_never_confident_gets_an_id_later(fps: float) -> None:
    tracker = PoseTracker()
    given = [ids(tracker.update(step / fps, person((300, 300), score=0.35), FRAME))[0] for step in range(int(2 * fps))]
    first = given.index(1) / fps
    assert first == pytest.approx(1.5, abs=1.01 / fps)
    assert set(given[given.index(1) :]) == {1}


def test_a_doubtful_part_of_a_person_gets_no_id() -> None:
    tracker = PoseTracker()
    for step in range(60):
        poses = person((300, 300), (300, 240))
        poses.box_scores[1] = 0.4
        poses.boxes_xyxy[1] = poses.boxes_xyxy[0] * (1, 1, 1, 0.75)
        assert ids(tracker.update(step / 30, poses, FRAME)) == [1, -1]


def doubtful(*centres: tuple[float, float], height: float = 200.0, score: float = 0.97) -> Poses:
    """As :func:`person`, with a pose that shows hardly anything."""
    poses = person(*centres, height=height, score=score)
    poses.keypoint_scores[:] = 0.65
    return poses


@pytest.mark.parametrize("fps", [10.0, *RATES])
def test_a_thing_that_looks_like_a_person_for_a_while_gets_no_id(fps: float) -> None:
    """Its box is as sure as can be, but its pose is not, and it has not come in over the edge."""
    tracker = PoseTracker()
    tracker.update(0.0, Poses.empty(), FRAME)
    times = np.arange(1, int(2 * fps)) / fps
    given = [ids(tracker.update(float(time_s), doubtful((600, 300)), FRAME))[0] for time_s in times]
    first = times[given.index(1)]
    assert first - times[0] == pytest.approx(1.5, abs=1 / fps + 1e-6)
    assert set(given) == {-1, 1}


@pytest.mark.parametrize("fps", [10.0, *RATES])
def test_who_comes_in_over_the_edge_is_believed_soon(fps: float) -> None:
    tracker = PoseTracker()
    tracker.update(0.0, Poses.empty(), FRAME)
    times = np.arange(1, int(fps) + 1) / fps
    given = []
    for time_s in times:
        poses = doubtful((1250 - 60 * float(time_s), 300))
        poses.boxes_xyxy[:] = np.clip(poses.boxes_xyxy, 0, [1280, 720, 1280, 720])
        given.append(ids(tracker.update(float(time_s), poses, FRAME))[0])
    assert times[given.index(1)] - times[0] == pytest.approx(0.2, abs=1 / fps + 1e-6)


def test_a_sure_pose_gets_an_id_at_once_anywhere() -> None:
    tracker = PoseTracker()
    tracker.update(0.0, Poses.empty(), FRAME)
    assert ids(tracker.update(0.1, person((600, 300)), FRAME)) == [1]


@pytest.mark.parametrize("fps", [10.0, 30.0])
def test_somebody_who_leaves_keeps_one_id_and_parts_get_none(fps: float) -> None:
    """The box is cut by the edge until only a leg is left, whose box is found as one more person for 0.7 s before."""
    tracker = PoseTracker()
    seen = set()
    for step in range(int(3 * fps)):
        x = 900 + 160 * step / fps
        poses = doubtful((x, 300), (x, 350))
        poses.boxes_xyxy[1, 1::2] = 290, 400
        poses.boxes_xyxy[:] = np.clip(poses.boxes_xyxy, 0, [1280, 720, 1280, 720])
        poses = poses.select([0] if x < 1130 else [0, 1] if x < 1240 else [1])
        seen.update(i for i in ids(tracker.update(step / fps, poses, FRAME)) if i > 0)
    assert seen == {1}


@pytest.mark.parametrize("edge", ["bottom", "top"])
def test_who_leaves_fast_keeps_the_id_until_the_last_strip(edge: str) -> None:
    """At 5 fps a third of the person is left of one frame to the next: too little, anywhere but at the edge."""
    tracker = PoseTracker()
    for step, shown in enumerate((200, 200, 200, 60)):
        poses = person((300, 620 + 0.5 * (200 - shown)), score=0.8)
        poses.boxes_xyxy[0] = [265, 720 - shown, 335, 720]
        if edge == "top":
            poses.boxes_xyxy[0, 1::2] = [0, shown]
            poses.keypoints_xy[..., 1] = 720 - poses.keypoints_xy[..., 1]
        assert ids(tracker.update(step / 5, poses, FRAME)) == [1], step


def test_a_part_that_is_left_of_somebody_in_the_middle_of_the_picture_is_not_the_person() -> None:
    tracker = PoseTracker()
    for step in range(3):
        assert ids(tracker.update(step / 5, person((300, 400), score=0.8), FRAME)) == [1]
    part = person((300, 400), height=70, score=0.8)
    assert ids(tracker.update(0.6, part, FRAME)) == [-1]


def test_somebody_three_times_as_large_is_not_the_person() -> None:
    tracker = PoseTracker()
    for step in range(3):
        assert ids(tracker.update(step / 5, person((600, 360), height=150, score=0.8), FRAME)) == [1]
    assert ids(tracker.update(0.6, person((600, 360), height=450, score=0.8), FRAME)) == [-1]


def test_something_small_at_the_edge_beside_somebody_is_not_the_person() -> None:
    tracker = PoseTracker()
    for step in range(3):
        assert ids(tracker.update(step / 5, person((60, 300), score=0.8), FRAME)) == [1]
    assert ids(tracker.update(0.6, person((17, 295), height=70, score=0.8), FRAME)) == [-1]


def around(first: Poses, second: Poses, score: float) -> Poses:
    """Two people, and a surer pose whose box is the box around both."""
    both = np.concatenate([first.boxes_xyxy, second.boxes_xyxy])
    middle = (both[:, :2].min(0) + both[:, 2:].max(0)) / 2
    mixed = person((float(middle[0]), float(middle[1])), score=score)
    box = np.concatenate([both[:, :2].min(0), both[:, 2:].max(0)])[None]
    mixed = replace(mixed, boxes_xyxy=box.astype(np.float32), keypoints_xy=mixed.keypoints_xy[:, ::-1].copy())
    names = ("keypoints_xy", "keypoint_scores", "scores", "boxes_xyxy", "box_scores")
    return Poses(*(np.concatenate([getattr(p, name) for p in (first, second, mixed)]) for name in names))


def test_a_box_around_two_people_is_nobody_for_long() -> None:
    tracker = PoseTracker()
    first, second = person((300, 300), score=0.8), person((360, 340), score=0.8)
    assert ids(tracker.update(0.0, person((300, 300), (360, 340), score=0.8), FRAME)) == [1, 2]
    given = {step: ids(tracker.update(step / 10, around(first, second, 0.97), FRAME)) for step in range(1, 20)}
    assert given[1] == given[15] == [1, 2, -1]
    assert given[18] == [1, 2, 3]  # whoever stays is somebody after all


def test_who_stands_before_two_people_is_not_taken_for_the_box_around_them() -> None:
    tracker = PoseTracker()
    assert ids(tracker.update(0.0, person((300, 300), (360, 340), score=0.8), FRAME)) == [1, 2]
    close = person((340, 400), height=620, score=0.97)
    far = person((300, 300), (360, 340), score=0.8)
    names = ("keypoints_xy", "keypoint_scores", "scores", "boxes_xyxy", "box_scores")
    together = Poses(*(np.concatenate([getattr(p, name) for p in (far, close)]) for name in names))
    assert ids(tracker.update(0.1, together, FRAME)) == [1, 2, 3]


@pytest.mark.parametrize("fps", RATES)
def test_a_box_around_somebody_and_a_neighbour_does_not_take_the_place_of_the_weaker_right_one(fps: float) -> None:
    """Somebody bends towards a neighbour: for half a second the detector is surest of a box that reaches down over
    both, in which the network sees the neighbour; the right box is there, but weak."""
    tracker = PoseTracker(TrackerOptions(confident_score=0.8, slow_score=0.8))
    for step in range(int(2 * fps)):
        tracker.update(step / fps, person((300, 300), (350, 380)), FRAME)
    for step in range(int(2 * fps), int(2.5 * fps)):
        poses = person((300, 300), (350, 380), (342, 372))
        poses.box_scores[:] = (0.75, 0.9, 0.93)
        poses.boxes_xyxy[2] = (262, 170, 350, 460)
        assert ids(tracker.update(step / fps, poses, FRAME)) == [1, 2, -1], step
    for step in range(int(2.5 * fps), int(3 * fps)):
        assert ids(tracker.update(step / fps, person((300, 300), (350, 380)), FRAME)) == [1, 2]


def test_nobody_out_of_reach_is_alike() -> None:
    rng = np.random.default_rng(3)
    known = rng.uniform(0, 300, (30, 1, 2)) + rng.normal(0, 20, (30, 17, 2))
    found = known[rng.permutation(30)] + rng.normal(0, 15, (30, 1, 2)) * rng.random((30, 1, 1))
    found[rng.random((30, 17)) < 0.02] = np.nan
    counted = rng.random((30, 17)) < 0.7
    area = rng.uniform(1000, 20000, 30)
    alike = pose_likeness(found, known, counted, area, np.ones((30, 30), bool))
    reachable = within_reach(found, known, area, 0.5)
    assert (reachable | (alike < 0.5)).all()
    assert (alike >= 0.5).sum() > 10
    assert reachable.mean() < 0.6


def test_in_a_crowd_only_poses_that_can_be_one_person_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    whole = track_match.oks_of_pairs

    def counting(found_xy: np.ndarray, *others: np.ndarray) -> np.ndarray:
        compared.append(len(found_xy))
        return whole(found_xy, *others)

    monkeypatch.setattr(track_match, "oks_of_pairs", counting)
    tracker = PoseTracker()
    for step in range(5):
        crowd = [(60.0 + 100 * column + step, 100.0 + 130 * row) for row in range(5) for column in range(12)]
        tracker.update(step / 30, person(*crowd, height=100, score=0.8), FRAME)
    assert max(compared[-2:]) <= 2 * 60
