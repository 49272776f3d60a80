"""Which known person and which found pose can be one: how alike all pairs are, and what the matching asks of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cpnpose.pipeline.track_doubt import APART, touches_edge
from cpnpose.pipeline.track_match import Array, iou_and_share, pose_likeness, within_reach
from cpnpose.pipeline.track_motion import BoxMotion, box_size, boxes_to_centres
from cpnpose.pipeline.track_options import TrackerOptions
from cpnpose.pose.types import Poses

GATE = 16.0
"""Greatest squared distance from the expected place, in expected errors: 4 sigma."""


class Pairs(NamedTuple):
    """T known people and N found poses, (T, N) each."""

    likeness: Array
    """0 to 1: IoU of boxes, OKS of keypoints and the motion's own expectation."""
    near: npt.NDArray[np.bool_]
    """Can be one person, seen a moment ago."""
    touching: npt.NDArray[np.bool_]
    """And lie mostly over each other."""
    back: npt.NDArray[np.bool_]
    """And are nearly of one size."""


def compare(
    motion: BoxMotion,
    keypoints: Array,
    counted: npt.NDArray[np.bool_],
    poses: Poses,
    frame_size: tuple[int, int] | None,
    options: TrackerOptions,
) -> Pairs:
    """Compare everybody expected by ``motion``, with keypoints (T, 17, 2) in pixels of which those ``counted`` (T, 17)
    tell something, with each of the ``poses``."""
    boxes = motion.boxes(frame_size)
    expected, found = boxes_to_centres(boxes), boxes_to_centres(poses.boxes_xyxy)
    overlap, inside = iou_and_share(boxes, poses.boxes_xyxy)
    distance = motion.distance(expected[:, :2], found[:, :2], options.reach)
    area = expected[:, 2] * expected[:, 3]
    possible = (distance <= GATE) | (overlap > 0.1) | within_reach(poses.keypoints_xy, keypoints, area, 0.5)
    similar = pose_likeness(poses.keypoints_xy, keypoints, counted, area, possible)
    likeness = 0.35 * overlap + 0.35 * similar + 0.3 * np.maximum(1.0 - distance / GATE, 0.0)
    ratio = box_size(poses.boxes_xyxy)[None] / motion.size[:, None]
    alike = overlap + similar
    close = (distance <= GATE) | (alike >= 0.7)
    leaving = touches_edge(poses.boxes_xyxy, frame_size)[None] & (inside > APART)
    near = close & (likeness >= options.min_likeness) & ((ratio > 0.4) | leaving) & (ratio < 2.5)
    return Pairs(likeness, near, near & (alike >= 0.5), near & (ratio > 0.6) & (ratio < 1.7))
