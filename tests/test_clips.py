"""The shipped detector on real clips, counted on frame ranges that were checked by eye. Skipped without the clips."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cpnpose.media.video import VideoReader
from cpnpose.models.manifest import load_manifest
from cpnpose.pipeline.load_detector import load_detector
from cpnpose.pose.geometry import box_iou
from cpnpose.pose.types import Detections

SHARED = Path(os.environ.get("CPNPOSE_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
CLIPS = SHARED / "media"

pytestmark = [
    pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the clips of ../shared/media"),
    pytest.mark.skipif(load_manifest().default_detector is None, reason="no detector is shipped"),
]

WALKER_FRAMES = range(49, 191)
"""walker_outdoors: the walking woman is whole in the picture, from the tree on the right to the left edge."""
PORTRAIT_FRAMES = range(100)
"""two_people_portrait: the man with the blue cap and the woman in front are there from first to last."""
EMPTY_FRAMES = [*range(59), *range(202, 227), *range(454, 499), *range(704, 743), *range(872, 921), *range(1202, 1233),
                *range(1362, 1394)]  # fmt: skip
"""standing_table: nobody, not even a foot or the top of a head."""

MAN_XY = {0: (421, 756), 45: (448, 783), 63: (459, 821), 81: (556, 891), 99: (610, 945)}
WOMAN_XY = {0: (783, 1161), 45: (756, 1161), 54: (702, 1118), 99: (783, 1134)}
"""Hips of the man and back of the woman in pixels at a few frames of two_people_portrait; straight lines between."""


def share(clip: str, frames: object, is_right: Callable[[int, Detections], bool]) -> float:
    """Share of ``frames`` of a clip whose detections at the default threshold are right."""
    detect = load_detector("default", device="cpu")
    wanted, right, total = set(frames), 0, 0  # type: ignore[call-overload]
    with VideoReader(CLIPS / clip) as reader:
        for frame in reader:
            if frame.index in wanted:
                right += is_right(frame.index, detect([frame.image])[0])
                total += 1
    assert total == len(wanted)
    return right / total


def along(points: dict[int, tuple[int, int]], index: int) -> np.ndarray:
    """(2,) the place at a frame."""
    frames, places = list(points), np.array(list(points.values()))
    return np.array([np.interp(index, frames, places[:, axis]) for axis in (0, 1)])


def around(boxes: np.ndarray, point: np.ndarray, heights: tuple[float, float]) -> np.ndarray:
    """(N,) which boxes hold the point and have a height within the limits."""
    holds = (boxes[:, :2] < point).all(1) & (boxes[:, 2:] > point).all(1)
    tall = boxes[:, 3] - boxes[:, 1]
    return holds & (tall > heights[0]) & (tall < heights[1])


def walker_found(index: int, found: Detections) -> bool:
    """She walks 9.94 pixels per frame to the left, and is about 390 pixels tall."""
    return bool(around(found.boxes_xyxy, np.array([1496 - 9.94 * (index - 49), 735]), (270, 540)).any())


def both_found(index: int, found: Detections) -> bool:
    man = around(found.boxes_xyxy, along(MAN_XY, index), (450, 1100))
    woman = around(found.boxes_xyxy, along(WOMAN_XY, index), (600, 1300))
    apart = box_iou(found.boxes_xyxy, found.boxes_xyxy) < 0.5
    return bool((man[:, None] & woman[None] & apart).any())


@pytest.mark.timeout(600)
def test_the_walker_is_found() -> None:
    measured = share("walker_outdoors.mp4", WALKER_FRAMES, walker_found)
    print(f"walker found: {measured:.3f}")
    assert measured >= 0.99


@pytest.mark.timeout(600)
def test_both_people_of_the_portrait_clip_are_found() -> None:
    measured = share("two_people_portrait.mp4", PORTRAIT_FRAMES, both_found)
    print(f"both found: {measured:.3f}")
    assert measured >= 0.95


@pytest.mark.timeout(600)
def test_nobody_is_found_in_the_empty_room() -> None:
    measured = share("standing_table.mp4", EMPTY_FRAMES, lambda index, found: len(found) == 0)
    print(f"empty frames without a person: {measured:.3f}")
    assert measured >= 0.99
