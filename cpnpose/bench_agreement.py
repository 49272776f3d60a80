"""How far the poses of a quicker mode agree with those of the full mode, on the same frames of a video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cpnpose.api import PoseEstimator
from cpnpose.media.video import VideoReader
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.track_match import BODY_SHARE, assign, iou
from cpnpose.pose.oks import oks
from cpnpose.pose.types import Poses

_SAME_PERSON = 0.3  # IoU of the boxes
_SEEN = 0.6  # score of a keypoint from which it is drawn by default
_ALIKE = 0.75


def agreement(
    video: Path, options: StreamOptions, mode: PoseEstimator, full: PoseEstimator, frames: int
) -> dict[str, Any]:
    """Run both over the first frames of a video, without tracking and smoothing, and compare; see :func:`compare`.

    Args:
        video: the input.
        options: of the quicker mode's stream; the full mode detects in every frame.
        mode, full: the networks of either.
        frames: most frames.
    """

    def poses(estimator: PoseEstimator, detect_every: int) -> list[Poses]:
        plain = replace(options, detect_every=detect_every, track=False, smooth="off")
        with VideoReader(video) as reader:
            return [result.poses for result in estimator.frames(islice(reader, frames), plain)]

    return compare(poses(mode, options.detect_every), poses(full, 1))


def compare(found: Iterable[Poses], wanted: Iterable[Poses]) -> dict[str, Any]:
    """People of the full mode (``wanted``) beside those of the quicker one, frame by frame.

    People are the same where their boxes overlap with an IoU of 0.3 or more, in the best assignment. The OKS is that of
    COCO, over the keypoints that the full mode would draw (score 0.6 or more), with half of the box as the area.

    Returns:
        frames; people of the full mode, of the quicker mode, and in both; mean OKS of these and the share of them with
        an OKS of 0.75 or more, None where there are none.
    """
    values: list[float] = []
    frames = people = others = both = 0
    for here, there in zip(found, wanted, strict=True):
        frames, people, others = frames + 1, people + len(there), others + len(here)
        overlap = iou(there.boxes_xyxy, here.boxes_xyxy)
        rows, columns = assign(overlap, overlap >= _SAME_PERSON)
        both += len(rows)
        sides = there.boxes_xyxy[:, 2:] - there.boxes_xyxy[:, :2]
        seen = there.keypoint_scores >= _SEEN
        alike = oks(here.keypoints_xy, there.keypoints_xy, seen, BODY_SHARE * sides.prod(axis=1))
        values += [float(alike[column, row]) for row, column in zip(rows, columns, strict=True) if seen[row].any()]
    return {
        "frames": frames,
        "people_of_the_full_mode": people,
        "people_of_this_mode": others,
        "people_of_both": both,
        "mean_oks": float(np.mean(values)) if values else None,
        "share_above_0.75": float(np.mean(np.array(values) >= _ALIKE)) if values else None,
    }
