from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cpnpose.pipeline.detect import PersonDetector, WholeImageDetector
from cpnpose.pipeline.estimate import load_pose_network
from cpnpose.pipeline.follow import Follower, as_estimated, stream_settings, with_weak_people
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.stream import run, run_serial
from cpnpose.pipeline.track import PoseTracker
from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, FloatArray, Frame, ImageArray, Poses

MakeFrames = Callable[..., list[Frame]]


class OneFading:
    """One person whose score sinks after three frames, and somebody else who is never more than half sure."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.count = 0

    def detect(
        self, images: Sequence[ImageArray], *, score: float, nms: float, max_people: int
    ) -> list[tuple[FloatArray, FloatArray]]:
        found = []
        for _ in images:
            scores = np.array([0.9 if self.count < 3 else 0.4, 0.35], np.float32)
            boxes = np.array([[2, 2, 30, 46], [40, 5, 60, 40]], np.float32)
            found.append((boxes[scores >= score], scores[scores >= score]))
            self.count += 1
        return found


def test_weak_detections_continue_tracks_but_start_none(tiny_weights: Path, make_frames: MakeFrames) -> None:
    network = load_pose_network(tiny_weights, device="cpu", precision="fp32")
    options = StreamOptions(chunk_frames=2, workers=1)
    for way in (run, run_serial):
        results = list(way(make_frames(6), PersonDetector(OneFading(), score=0.5), network, options))  # type: ignore[operator]
        assert [result.poses.track_ids.tolist() for result in results] == [[1]] * 6
    untracked = replace(options, track=False)
    results = list(run(make_frames(6), PersonDetector(OneFading(), score=0.5), network, untracked))
    assert [len(result.poses) for result in results] == [1, 1, 1, 0, 0, 0]


class Flickering:
    """Something that is taken for a person once, and then is a weak detection for long."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.count = 0

    def detect(
        self, images: Sequence[ImageArray], *, score: float, nms: float, max_people: int
    ) -> list[tuple[FloatArray, FloatArray]]:
        found = []
        for _ in images:
            scores = np.array([0.55 if self.count < 2 else 0.3], np.float32)
            boxes = np.array([[2, 2, 30, 46]], np.float32)
            found.append((boxes[scores >= score], scores[scores >= score]))
            self.count += 1
        return found


def test_weak_detections_do_not_keep_alive_who_was_never_sure(tiny_weights: Path, make_frames: MakeFrames) -> None:
    network = load_pose_network(tiny_weights, device="cpu", precision="fp32")
    results = list(run_serial(make_frames(25), PersonDetector(Flickering(), score=0.5), network))
    assert [len(result.poses) for result in results[:2]] == [1, 1]
    assert sum(len(result.poses) for result in results) < 10


def test_weak_detections_without_an_id_leave_no_trace(make_frames: MakeFrames) -> None:
    """What a record holds is enough to make the tracker's state again."""
    random = np.random.default_rng(4)
    options = StreamOptions(confident_score=0.5, drop_below=0.5)
    whole, again = Follower(options), Follower(options)
    for index, frame in enumerate(make_frames(60)):
        moved = [poses(index * 0.5), poses(60 + 3 * random.standard_normal()), poses(-30 + random.uniform(0, 9))]
        scores = np.array([0.9 if index % 20 < 12 else 0.3, 0.3, random.uniform(0.25, 0.7)], np.float32)
        everybody = Poses(
            *(np.concatenate([getattr(one, name) for one in moved]) for name in list(vars(moved[0]))[:4]), scores
        )
        first = whole.update(frame, everybody)
        second = again.update(frame, as_estimated(first))
        np.testing.assert_array_equal(second.track_ids, first.track_ids)
        np.testing.assert_array_equal(second.keypoints_xy, first.keypoints_xy)


def test_thresholds_of_both_stages() -> None:
    detector = PersonDetector(OneFading(), score=0.6, max_people=7)
    weak, options = with_weak_people(detector, StreamOptions())
    assert isinstance(weak, PersonDetector)
    assert (weak.score, weak.max_people) == (0.3, 7)
    assert (options.confident_score, options.drop_below) == (0.6, 0.6)
    again, same = with_weak_people(weak, options)
    assert isinstance(again, PersonDetector)
    assert (again.score, same) == (0.3, options)
    assert with_weak_people(detector, StreamOptions(track=False))[0] is detector
    # two thresholds: who is found, and who is followed
    weak, options = with_weak_people(PersonDetector(OneFading(), score=0.4, track_score=0.7), StreamOptions())
    assert isinstance(weak, PersonDetector)
    assert (weak.score, weak.track_score, options.confident_score, options.drop_below) == (0.35, 0.7, 0.7, 0.7)
    settings = stream_settings(detector, StreamOptions(detect_every=4))
    assert settings["detect_every"] == 4
    assert (settings["confident_score"], settings["drop_below"], settings["smooth"]) == (0.6, 0.6, "one-euro")
    assert stream_settings(detector, StreamOptions(track=False))["smooth"] == "off"
    other = WholeImageDetector()
    assert with_weak_people(other, StreamOptions()) == (other, StreamOptions())


def poses(shift: float) -> Poses:
    points = np.linspace(10, 40, 34, dtype=np.float32).reshape(1, 17, 2) + np.float32(shift)
    ones = np.ones(1, np.float32)
    box = np.array([[5, 5, 45, 45]], np.float32) + np.float32(shift)
    return Poses(points, np.full((1, 17), 1.2, np.float32), ones, box, ones)


def test_followed_poses_give_back_what_the_network_said(make_frames: MakeFrames) -> None:
    follower = Follower(StreamOptions())
    for index, frame in enumerate(make_frames(5)):
        before = poses(index * 0.37)
        after = follower.update(frame, before)
        assert after.track_ids is not None
        assert after.track_ids.tolist() == [1]
        np.testing.assert_allclose(as_estimated(after).keypoints_xy, before.keypoints_xy, atol=0.006)
        assert as_estimated(after).track_ids is None
    assert not np.array_equal(after.keypoints_xy, as_estimated(after).keypoints_xy)


def test_filled_and_exchanged_poses_give_back_what_the_network_said() -> None:
    """People who were added go, and scores and uncertainty are on the side where the network gave them."""
    scores = np.linspace(0.6, 1.2, 17, dtype=np.float32)[None].repeat(2, axis=0)
    flags = np.zeros((2, 17), np.uint8)
    flags[0, [15, 16]] = FLAG_SWAPPED
    flags[1] = FLAG_FILLED
    two = poses(0).select([0, 0])
    followed = replace(
        two,
        keypoint_scores=scores,
        uncertainty_px=10 * scores,
        raw_keypoints_xy=two.keypoints_xy + 1,
        box_scores=np.array([0.9, 0], np.float32),
        track_ids=np.array([1, 2]),
        flags=flags,
    )
    before = as_estimated(followed)
    order = [*range(15), 16, 15]
    np.testing.assert_array_equal(before.keypoint_scores, scores[:1, order])
    assert before.uncertainty_px is not None
    np.testing.assert_array_equal(before.uncertainty_px, 10 * scores[:1, order])
    np.testing.assert_array_equal(before.keypoints_xy, two.keypoints_xy[:1] + 1)
    assert before.flags is before.track_ids is before.raw_keypoints_xy is None


@pytest.mark.parametrize(("memory_s", "same"), [(0.5, False), (2.0, True)])
def test_the_memory_asked_for_is_the_trackers(make_frames: MakeFrames, memory_s: float, same: bool) -> None:
    follower, frames = Follower(StreamOptions(track_memory=memory_s)), make_frames(36)
    first = follower.update(frames[0], poses(0)).track_ids
    for frame in frames[1:30]:
        follower.update(frame, Poses.empty())
    for frame in frames[30:]:
        last = follower.update(frame, poses(0)).track_ids
    assert first is not None
    assert last is not None
    assert (first.tolist(), last.tolist()) == ([1], [1 if same else 2])


def test_the_tracker_is_told_the_pictures_height_and_width(
    make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    def update(self: PoseTracker, time_s: float, poses: Poses, frame_size: tuple[int, int]) -> Poses:
        told.append(frame_size)
        return poses

    monkeypatch.setattr(PoseTracker, "update", update)
    follower, frame = Follower(StreamOptions()), make_frames(1)[0]
    follower.update(frame, poses(0))
    follower.update(replace(frame, image=np.zeros((0, 0, 3), np.uint8)), poses(0), (720, 1280))
    assert told == [(48, 64), (720, 1280)]


def test_poses_are_rounded_as_in_a_record_before_they_are_followed(make_frames: MakeFrames) -> None:
    after = Follower(StreamOptions(track=False)).update(make_frames(1)[0], poses(0.1237))
    np.testing.assert_allclose(after.keypoints_xy, poses(0.1237).keypoints_xy.round(2), atol=1e-5)
    assert np.abs(after.keypoints_xy - poses(0.1237).keypoints_xy).max() > 1e-3


def test_times_are_rounded_as_in_a_record_before_people_are_followed(make_frames: MakeFrames) -> None:
    exact, stored = Follower(StreamOptions()), Follower(StreamOptions())
    for number, frame in enumerate(make_frames(30)):
        moved = poses(150.0 * math.sin(number / 4))
        first = exact.update(replace(frame, time_s=number / 60 + 4e-7), moved)
        second = stored.update(replace(frame, time_s=round(number / 60 + 4e-7, 6)), moved)
        np.testing.assert_array_equal(first.keypoints_xy, second.keypoints_xy)


def test_nothing_is_asked_for(make_frames: MakeFrames) -> None:
    after = Follower(StreamOptions(track=False)).update(make_frames(1)[0], poses(0.123))
    assert after.track_ids is None
    assert after.raw_keypoints_xy is None
    np.testing.assert_allclose(after.keypoints_xy, poses(0.123).keypoints_xy, atol=0.006)


@pytest.mark.parametrize("values", [{"detect_every": 0}, {"detect_every": 1000}, {"track_memory": -1}, {"smooth": "x"}])
def test_options_outside_their_range(values: dict[str, object]) -> None:
    from cpnpose.errors import OptionError

    with pytest.raises(OptionError):
        StreamOptions(**values)  # type: ignore[arg-type]
