from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cpnpose.errors import InputError, OptionError
from cpnpose.pipeline.person import PersonStatistics, check_choice, choose_person, only_person
from cpnpose.pose.types import Frame, FrameResult, Poses

SIZE = (400, 600)


def frame(index: int, people: dict[int, tuple[float, float, float]], time_s: float | None = None) -> FrameResult:
    """people: id -> (centre x, centre y, side of the square box)."""
    image = np.zeros((0, 0, 3), np.uint8)
    seconds = index / 10 if time_s is None else time_s
    count = len(people)
    boxes = [[x - s / 2, y - s / 2, x + s / 2, y + s / 2] for x, y, s in people.values()]
    poses = Poses(
        keypoints_xy=np.zeros((count, 17, 2), np.float32),
        keypoint_scores=np.ones((count, 17), np.float32),
        scores=np.ones(count, np.float32),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        box_scores=np.ones(count, np.float32),
        track_ids=np.array(list(people), np.int64),
    )
    return FrameResult(Frame(index, index, Fraction(1, 10), seconds, image), poses)


def clip() -> Iterator[FrameResult]:
    """Person 1 is small, central, always there; 2 large, at the side, for two thirds; 3 huge, but for a moment."""
    for index in range(60):
        people = {1: (310.0, 200.0, 40.0)}
        if index < 40:
            people[2] = (100.0, 200.0, 120.0)
        if index == 30:
            people[3] = (300.0, 200.0, 350.0)
        people[-1] = (300.0, 200.0, 500.0)
        yield frame(index, people)


@pytest.mark.parametrize(("how", "expected"), [("largest", 2), ("longest", 1), ("center", 1), ("id:3", 3)])
def test_choice_over_the_whole_clip(how: str, expected: int) -> None:
    assert choose_person(clip(), how, SIZE) == expected


def test_time_counts_not_frames() -> None:
    frames = [frame(i, {1: (10, 10, 5)}, time_s=i / 1000) for i in range(20)]
    frames += [frame(20 + i, {2: (10, 10, 5)}, time_s=1.0 + i) for i in range(3)]
    assert choose_person(frames, "longest", SIZE) == 2


def test_single_frame_and_ties() -> None:
    assert choose_person([frame(0, {4: (100, 100, 20), 5: (100, 100, 60)})], "largest", SIZE) == 5
    assert choose_person([frame(0, {7: (100, 100, 20), 5: (100, 100, 20)})], "longest", SIZE) == 5


def test_center_is_found_without_a_frame_size() -> None:
    assert choose_person(clip(), "center") == 1


def test_wrong_choices_are_told() -> None:
    for how in ("biggest", "id:", "id:0", "id:x", "id:-1", ""):
        with pytest.raises(OptionError, match="largest, longest, center or id:N"):
            check_choice(how)
    assert check_choice("id:12") == 12
    with pytest.raises(InputError, match="ids are 1, 2, 3"):
        choose_person(clip(), "id:9", SIZE)
    untracked = [replace(r, poses=replace(r.poses, track_ids=None)) for r in clip()]
    with pytest.raises(InputError, match="nobody"):
        choose_person(untracked, "longest", SIZE)


def test_only_person_keeps_every_frame() -> None:
    results = list(only_person(clip(), 2))
    assert len(results) == 60
    assert [len(r.poses) for r in results] == [1] * 40 + [0] * 20
    assert all((r.poses.track_ids == 2).all() for r in results if r.poses.track_ids is not None)


def test_memory_is_one_entry_per_person() -> None:
    statistics = PersonStatistics()
    for result in clip():
        statistics.add(result, SIZE)
    assert sorted(statistics.people) == [1, 2, 3]
