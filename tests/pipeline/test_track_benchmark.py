"""A benchmark with known people: crossing, leaving, returning, missed, weak and false detections, jitter.

The scenes are functions of time in seconds, so that every frame rate looks at the same people. MOTA and IDF1 by
`motmetrics`; print them with ``pytest -s tests/pipeline/test_track_benchmark.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from cpnpose.pipeline.track import PoseTracker
from cpnpose.pipeline.track_match import iou
from cpnpose.pose.types import Poses

FRAME = (1080, 1920)
TEMPLATE = np.array(
    [
        [0.0, -0.43], [0.02, -0.45], [-0.02, -0.45], [0.04, -0.44], [-0.04, -0.44], [0.10, -0.32], [-0.10, -0.32],
        [0.13, -0.18], [-0.13, -0.18], [0.14, -0.04], [-0.14, -0.04], [0.07, -0.02], [-0.07, -0.02], [0.07, 0.22],
        [-0.07, 0.22], [0.07, 0.45], [-0.07, 0.45],
    ]
)  # fmt: skip
SWING = np.array([0, 0, 0, 0, 0, 0, 0, 0.04, -0.04, 0.08, -0.08, 0, 0, -0.05, 0.05, -0.12, 0.12])


@dataclass(frozen=True)
class Actor:
    path: Callable[[float], tuple[float, float]]
    height: float
    visible: Callable[[float], bool] = lambda t: True


def true_people(actors: list[Actor], time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (N,), keypoints (N, 17, 2) and boxes (N, 4) of those in view; boxes are cut to the frame."""
    numbers, points = [], []
    for number, actor in enumerate(actors):
        x, y = actor.path(time_s)
        if actor.visible(time_s) and 0 < x < FRAME[1]:
            pose = TEMPLATE.copy()
            pose[:, 0] += SWING * math.sin(2 * math.pi * (time_s + 0.3 * number))
            numbers.append(number)
            points.append(pose * actor.height + (x, y))
    keypoints = np.array(points).reshape(-1, 17, 2)
    heights = np.array([actors[n].height for n in numbers])[:, None]
    boxes = np.concatenate([keypoints.min(axis=1) - 0.05 * heights, keypoints.max(axis=1) + 0.05 * heights], axis=1)
    return np.array(numbers, int), keypoints, np.clip(boxes, 0, [FRAME[1], FRAME[0]] * 2)


def detect(
    keypoints: np.ndarray, boxes: np.ndarray, elapsed_s: float, rng: np.random.Generator
) -> tuple[Poses, np.ndarray]:
    """What an imperfect detector and network make of it, in random order, and each found box's owner (-1: false)."""
    count = len(boxes)
    heights = (boxes[:, 3] - boxes[:, 1])[:, None]
    overlap = iou(boxes, boxes)
    behind = boxes[:, None, 3] < boxes[None, :, 3]
    hidden = ((overlap > 0.5) & behind).any(axis=1)
    scores = np.where(rng.random(count) < 0.08, rng.uniform(0.15, 0.45, count), rng.uniform(0.7, 0.99, count))
    scores = np.where(hidden, rng.uniform(0.1, 0.45, count), scores)
    seen = (rng.random(count) >= 0.05) & (~hidden | (rng.random(count) < 0.3))
    found_xy = keypoints + rng.normal(0, 0.012, keypoints.shape) * heights[:, None]
    found_boxes = boxes + rng.normal(0, 0.02, boxes.shape) * heights
    owners = np.arange(count)
    if rng.random() < 0.5 * elapsed_s:
        centre = rng.uniform([100, 200], [1800, 900])
        height = rng.uniform(100, 400)
        found_xy = np.concatenate([found_xy, (TEMPLATE * height + centre)[None]])
        half = np.array([0.2 * height, height / 2])
        found_boxes = np.concatenate([found_boxes, np.concatenate([centre - half, centre + half])[None]])
        scores, seen, owners = np.append(scores, rng.uniform(0.1, 0.7)), np.append(seen, True), np.append(owners, -1)
    rows = rng.permutation(np.flatnonzero(seen))
    poses = Poses(
        keypoints_xy=found_xy[rows].astype(np.float32),
        keypoint_scores=np.full((len(rows), 17), 1.1, np.float32),
        scores=(1.1 * scores[rows]).astype(np.float32),
        boxes_xyxy=found_boxes[rows].astype(np.float32),
        box_scores=scores[rows].astype(np.float32),
    )
    return poses, owners[rows]


def walk(start: tuple[float, float], speed: tuple[float, float]) -> Callable[[float], tuple[float, float]]:
    return lambda t: (start[0] + speed[0] * t, start[1] + speed[1] * t)


def wander(seed: int) -> Callable[[float], tuple[float, float]]:
    rng = np.random.default_rng(seed)
    home = rng.uniform([350, 350], [1570, 730])
    rates, phases = rng.uniform(0.25, 0.7, 4), rng.uniform(0, 2 * math.pi, 4)

    def path(t: float) -> tuple[float, float]:
        x = 220 * math.sin(rates[0] * t + phases[0]) + 90 * math.sin(2 * rates[1] * t + phases[1])
        y = 60 * math.sin(rates[2] * t + phases[2]) + 20 * math.sin(2 * rates[3] * t + phases[3])
        return home[0] + x, home[1] + y

    return path


SCENES: dict[str, list[Actor]] = {
    "crossing": [
        Actor(walk((100, 500), (170, 0)), 300),
        Actor(walk((1800, 520), (-160, 0)), 320),
        Actor(walk((200, 300), (110, 30)), 260),
    ],
    "leaving": [
        Actor(walk((300 + 250 * i, 540), (4 * (i - 3), 0)), 300, (lambda t: t < 5.0) if i == 2 else (lambda t: True))
        for i in range(6)
    ],
    "returning": [
        Actor(walk((200, 500), (120, 0)), 300, lambda t: not 4.0 < t < 5.5),
        Actor(walk((1700, 560), (-40, 0)), 340, lambda t: not 3.0 < t < 4.8),
        Actor(walk((600, 400), (0, 5)), 250, lambda t: not 6.0 < t < 8.0),
    ],
    "crowd": [Actor(wander(seed), 220 + 12 * seed) for seed in range(8)],
}
DURATION_S = 10.0


def frame_times(rate: str) -> np.ndarray:
    if rate == "vfr":
        steps = np.random.default_rng(5).choice([1 / 60, 1 / 30, 1 / 12, 0.25], 400, p=[0.35, 0.4, 0.15, 0.1])
        times = np.cumsum(steps)
        return times[times < DURATION_S]
    return np.arange(0, DURATION_S, 1 / float(rate))


def run_scene(
    scene: str, rate: str, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, Poses, np.ndarray]]:
    rng = np.random.default_rng(seed)
    tracker = PoseTracker()
    frames, before = [], 0.0
    for time_s in frame_times(rate):
        numbers, keypoints, boxes = true_people(SCENES[scene], float(time_s))
        poses, owners = detect(keypoints, boxes, float(time_s) - before, rng)
        tracked = tracker.update(float(time_s), poses, FRAME)
        truth = np.where(owners >= 0, np.append(numbers, -1)[owners], -1)
        frames.append((numbers, boxes, keypoints, tracked, truth))
        before = float(time_s)
    return frames


def evaluate(scene: str, rate: str, seed: int = 0) -> tuple[float, float, int]:
    """MOTA, IDF1 and the number of id switches. A person counts as found with an IoU of 0.5."""
    motmetrics = pytest.importorskip("motmetrics", reason="pip install motmetrics")
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for numbers, boxes, _, tracked, _ in run_scene(scene, rate, seed):
        assert tracked.track_ids is not None
        given = tracked.track_ids > 0
        distance = 1 - iou(boxes, tracked.boxes_xyxy[given])
        accumulator.update(numbers, tracked.track_ids[given], np.where(distance > 0.5, np.nan, distance))
    summary = motmetrics.metrics.create().compute(accumulator, metrics=["mota", "idf1", "num_switches"], name="all")
    return float(summary["mota"].iloc[0]), float(summary["idf1"].iloc[0]), int(summary["num_switches"].iloc[0])


HELD: dict[str, tuple[float, float]] = {
    "crossing": (0.91, 0.94),
    "leaving": (0.91, 0.94),
    "returning": (0.87, 0.92),
    "crowd": (0.86, 0.84),
}
"""Lowest MOTA and IDF1. One detection in twenty is missed on purpose, and a twelfth of the rest is weak, so 1 is out of
reach; the crowd is hard at 5 fps and with pauses of 0.25 s."""


@pytest.mark.parametrize("rate", ["5", "30", "60", "vfr"])
@pytest.mark.parametrize("scene", SCENES)
def test_mota_and_idf1_are_held(scene: str, rate: str) -> None:
    mota, idf1, switches = evaluate(scene, rate)
    print(f"{scene:10} {rate:>4} fps: MOTA {mota:.3f} IDF1 {idf1:.3f} switches {switches}")
    lowest_mota, lowest_idf1 = HELD[scene]
    assert mota >= lowest_mota
    assert idf1 >= lowest_idf1
    if scene in ("crossing", "leaving"):
        assert switches == 0


@pytest.mark.parametrize("rate", ["5", "30", "60", "vfr"])
@pytest.mark.parametrize("seed", [1, 2])
def test_one_of_many_leaves_and_nobody_else_changes(rate: str, seed: int) -> None:
    ids: dict[int, set[int]] = {number: set() for number in range(6)}
    for *_, tracked, truth in run_scene("leaving", rate, seed):
        assert tracked.track_ids is not None
        for number, track_id in zip(truth, tracked.track_ids, strict=True):
            if number >= 0 and track_id > 0:
                ids[number].add(int(track_id))
    assert all(len(own) == 1 for own in ids.values()), ids
    assert len(set.union(*ids.values())) == 6


@pytest.mark.parametrize("rate", ["5", "30", "60", "vfr"])
def test_a_person_behind_a_pillar_keeps_the_id(rate: str) -> None:
    before, after = set(), set()
    frames = run_scene("returning", rate, 3)
    for time_s, (*_, tracked, truth) in zip(frame_times(rate), frames, strict=True):
        assert tracked.track_ids is not None
        own = {int(i) for i in tracked.track_ids[truth == 0] if i > 0}
        (before if time_s < 4 else after).update(own)
    assert before == after
    assert len(before) == 1
