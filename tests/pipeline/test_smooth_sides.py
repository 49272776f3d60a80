"""Legs of somebody seen from the side: left and right exchanged by the network, and legs that really cross."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpnpose.pipeline.smooth import OneEuroFilter
from cpnpose.pose.keypoints import FLIP_INDEX
from cpnpose.pose.types import Poses

HEIGHT = 300.0
ANKLES, LEGS = [15, 16], [11, 12, 13, 14, 15, 16]
FLIPPED_LEGS = [FLIP_INDEX[joint] for joint in LEGS]


def stepping(phase: float) -> np.ndarray:
    """(17, 2) pixels: a walker seen from the side who stays where he is, as a camera at his side shows him."""
    pose = np.zeros((17, 2))
    pose[:, 0] = 200 + np.random.default_rng(4).uniform(-15, 15, 17)
    pose[:, 1] = [40, 35, 35, 38, 38, 80, 80, 120, 120, 155, 155, 165, 165, 230, 230, 300, 300]
    swing = math.sin(phase) * HEIGHT * np.array([0.1, 0.23])
    pose[[13, 15], 0], pose[[14, 16], 0] = 200 + swing, 200 - swing
    return pose


def smooth(path: np.ndarray, fps: float, seed: int = 0) -> np.ndarray:
    """(T, 17, 2) with some noise through the filter."""
    rng, smoother, smoothed = np.random.default_rng(seed), OneEuroFilter(), []
    for index, points in enumerate(path + rng.normal(0, 0.006 * HEIGHT, path.shape)):
        poses = Poses(
            keypoints_xy=points[None].astype(np.float32),
            keypoint_scores=np.full((1, 17), 1.25, np.float32),
            scores=np.ones(1, np.float32),
            boxes_xyxy=np.array([[120, 10, 280, 10 + HEIGHT]], np.float32),
            box_scores=np.ones(1, np.float32),
            track_ids=np.array([1]),
        )
        smoothed.append(smoother.update(index / fps, poses).keypoints_xy[0])
    return np.array(smoothed, np.float64)


def apart(path: np.ndarray) -> np.ndarray:
    """How far the ankles are apart, (T,), in heights."""
    return np.abs(path[:, 15, 0] - path[:, 16, 0]) / HEIGHT


@pytest.mark.parametrize("fps", [15.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("seconds", [0.1, 0.25, 1.0])
def test_exchanged_legs_do_not_pass_through_each_other(fps: float, seconds: float) -> None:
    """The walker stands in mid-stride for a moment; the network gives each leg the other one's side, and back."""
    path = np.tile(stepping(math.pi / 2), (int(4 * fps), 1, 1))
    start, end = int(2 * fps), int((2 + seconds) * fps)
    seen = path.copy()
    seen[start:end, LEGS] = path[start:end, FLIPPED_LEGS]
    assert apart(smooth(seen, fps)).min() > 0.9 * apart(path).min()


@pytest.mark.parametrize("fps", [15.0, 30.0, 60.0, 240.0])
def test_legs_that_cross_in_walking_are_not_held(fps: float) -> None:
    path = np.array([stepping(2 * math.pi * index / fps) for index in range(int(8 * fps))])
    smoothed = smooth(path, fps)[int(fps) :]
    path = path[int(fps) :]
    own, other = (np.abs(smoothed[:, ANKLES, 0] - path[:, ankles, 0]) for ankles in (ANKLES, ANKLES[::-1]))
    wide = apart(path) > 0.2
    assert (own < other)[wide].mean() > 0.9
    assert np.abs(smoothed - path).mean() < (0.04 if fps < 30 else 0.02) * HEIGHT


@pytest.mark.parametrize("fps", [15.0, 30.0, 60.0])
def test_legs_that_have_changed_places_for_good_are_believed(fps: float) -> None:
    path = np.tile(stepping(math.pi / 2), (int(5 * fps), 1, 1))
    start = int(2 * fps)
    path[start:, LEGS] = path[start:, FLIPPED_LEGS]
    smoothed = smooth(path, fps)
    assert np.abs(smoothed - path)[start + int(0.5 * fps) :].max() < 0.1 * HEIGHT
    assert apart(smoothed).min() > 0.9 * apart(path).min()
