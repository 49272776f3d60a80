"""Over time: identities and smooth motion, frame by frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cpnpose.formats.frame_record import TIME_DECIMALS, quantize
from cpnpose.pipeline.detect import Detector, PersonDetector
from cpnpose.pipeline.fill import without_filled
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.smooth import OneEuroFilter
from cpnpose.pipeline.track import PoseTracker
from cpnpose.pipeline.track_options import TrackerOptions
from cpnpose.pose.keypoints import FLIP_INDEX, NUM_KEYPOINTS
from cpnpose.pose.types import FLAG_SWAPPED, Frame, Poses

_WEAK_SHARE = 0.5  # of the detector's threshold


class Follower:
    """Tracker and filter of one video. Must see the frames one by one and in order.

    Poses and times are rounded as records round them (0.01 pixel, a microsecond) before they are followed: what is made
    again from a record is then equal to the run itself.
    """

    def __init__(self, options: StreamOptions) -> None:
        confident = TrackerOptions.confident_score if options.confident_score is None else options.confident_score
        slow = confident if options.drop_below > 0 else min(confident, TrackerOptions.slow_score)
        tracking = TrackerOptions(memory_s=options.track_memory, confident_score=confident, slow_score=slow)
        self._tracker = PoseTracker(tracking) if options.track else None
        self._drop_below = options.drop_below
        self._filter = OneEuroFilter() if options.smoothing == "one-euro" else None

    def update(self, frame: Frame, poses: Poses, size: tuple[int, int] | None = None) -> Poses:
        """The people in the same order, with ids and smooth keypoints where the options want them; without those whose
        detection was weak and continues nobody's track, where ``options.drop_below`` says so.

        Args:
            frame: only its time and size are used.
            poses: of the frame, as the network gave them.
            size: (height, width) of the picture, where the frame has no image.
        """
        poses, time_s = quantize(poses), round(frame.time_s, TIME_DECIMALS)
        if self._tracker is not None:
            poses = self._tracker.update(time_s, poses, size or (frame.image.shape[0], frame.image.shape[1]))
            if self._drop_below > 0 and poses.track_ids is not None:
                poses = poses.select((poses.track_ids > 0) | (poses.box_scores >= self._drop_below))
        if self._filter is not None:
            poses = self._filter.update(time_s, poses)
        return poses


def with_weak_people(detector: Detector, options: StreamOptions) -> tuple[Detector, StreamOptions]:
    """Detector and options for the two stages of tracking: people whom the detector is less sure of than its threshold
    may continue a track, but nobody new comes of them and they are dropped otherwise."""
    if not options.track or not isinstance(detector, PersonDetector):
        return detector, options
    confident = detector.track_score if options.confident_score is None else options.confident_score
    weak = detector.with_score(min(detector.score, _WEAK_SHARE * confident))
    return weak, replace(options, confident_score=confident, drop_below=confident)


def stream_settings(detector: Detector, options: StreamOptions) -> dict[str, Any]:
    """What a record says of ``options``: plain JSON values, with the thresholds that :func:`with_weak_people` sets."""
    seen = with_weak_people(detector, options)[1]
    return {
        "detect_every": options.detect_every,
        "track": options.track,
        "track_memory": options.track_memory,
        "confident_score": seen.confident_score,
        "drop_below": seen.drop_below,
        "smooth": options.smoothing,
    }


def as_estimated(poses: Poses) -> Poses:
    """Followed poses as they were before: without ids and added people, with the raw keypoints, and with scores back
    on the side where the network gave them."""
    poses = without_filled(poses)
    raw = poses.keypoints_xy if poses.raw_keypoints_xy is None else poses.raw_keypoints_xy
    scores, uncertainty = poses.keypoint_scores, poses.uncertainty_px
    if poses.flags is not None:
        swapped = (poses.flags & FLAG_SWAPPED) > 0
        order = np.where(swapped, np.array(FLIP_INDEX), np.arange(NUM_KEYPOINTS))
        scores = np.take_along_axis(scores, order, axis=1)
        uncertainty = None if uncertainty is None else np.take_along_axis(uncertainty, order, axis=1)
    return replace(
        poses,
        keypoints_xy=raw,
        keypoint_scores=scores,
        uncertainty_px=uncertainty,
        raw_keypoints_xy=None,
        track_ids=None,
        flags=None,
    )
