"""Smoothing that follows real timestamps: the One-Euro filter, per person and joint.

Source: Casiez, Roussel, Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems" (CHI 2012), algorithm 1. A joint at rest is smoothed much, a fast joint hardly. Speeds are measured in sizes of
the person (longer side of the box) per second, so the same settings fit every resolution and every distance.

Added to the paper's filter: a joint is believed by its score. The jump of a joint that the network hardly sees, or
that lands where its left or right counterpart was, is mostly an error: it raises the cutoff less, so that single wrong
places are damped while a place that lasts is reached. So that such joints do not stay behind a person who moves, they
are carried along with the joints that are seen well. Where the whole person's left and right change places from one
frame to the next, as they do with people seen from behind, the joints are kept apart until that has lasted, and change
places at once then: otherwise all would pass through the middle of the body. So are legs seen from the side, where both
feet change places faster than feet move. Until then joints that are as near to the one side as to the other go with the
rest, so that no leg crosses the other, and of somebody who stands still a joint that alone goes to its counterpart
stays where it is. And the cutoff does not rise in proportion to the speed from the start: the slow speeds of a resting
joint are mostly noise and raise it little, so that it can rise the more where a joint really moves, and a swinging arm
is not left behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cpnpose.errors import OptionError
from cpnpose.pipeline.smooth_sides import EXCHANGED_FROM, FLIP, beside_counterpart, exchanged_sides, length
from cpnpose.pipeline.track_motion import box_size
from cpnpose.pose.types import FloatArray, IntArray, Poses

Array = npt.NDArray[np.float64]

SIZE_TAU_S = 0.5
"""The person's size is averaged over about so many seconds, since boxes tremble too."""
SHORTEST_STEP_S = 1e-3
"""Two frames with the same timestamp count as so far apart."""
SURE_HEAT = 0.7
"""Heatmap value (score less 0.5) from which a joint is believed fully; at 0 its jumps are not believed at all."""
EXCHANGED_BELIEF = 0.25
"""How far a joint is believed that has jumped to where its left or right counterpart was."""
EXCHANGED_HELD_S = (0.3, 1.0)
"""A person whose left and right have changed places is believed after so many seconds: at least, and at most."""
EXCHANGED_HELD_SHARE = 0.1
"""In between, after this share of the time for which they have been where they are."""
STILL_SPEED = 0.1
"""A person who moves by less than so many sizes per second stands still. From 0.03 to 0.2 makes little difference."""


@dataclass(frozen=True)
class OneEuroOptions:
    """How much is smoothed."""

    min_cutoff_hz: float = 0.5
    """Cutoff frequency for a joint at rest: lower is calmer."""
    beta: float = 15.0
    """Hertz by which the cutoff rises per size and second of a fast joint's speed: higher follows quicker."""
    calm_speed: float = 0.6
    """Speed in sizes per second at which the cutoff rises half as much as that, and the slower the less; 0 for the
    paper's straight line."""
    derivative_cutoff_hz: float = 1.0
    """Cutoff frequency of the speed itself."""
    max_gap_s: float = 0.5
    """A person not seen for longer starts anew."""

    def __post_init__(self) -> None:
        for name in ("min_cutoff_hz", "derivative_cutoff_hz"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} of the smoothing is {getattr(self, name)}; give a frequency above 0")
        if self.beta < 0 or self.calm_speed < 0 or self.max_gap_s < 0:
            raise OptionError("beta, calm_speed, max_gap_s of the smoothing cannot be negative; give numbers from 0 up")


class OneEuroFilter:
    """Smooths the keypoints of tracked people, frame by frame, without look-ahead."""

    def __init__(self, options: OneEuroOptions | None = None) -> None:
        self.options = options or OneEuroOptions()
        self._ids: IntArray = np.zeros(0, np.int64)
        self._last_s: Array = np.zeros(0)
        self._size: Array = np.zeros(0)
        self._smooth_xy: Array = np.zeros((0, 17, 2))
        self._speed: Array = np.zeros((0, 17, 2))
        self._last_xy: Array = np.zeros((0, 17, 2))
        self._sided_s: Array = np.zeros((0, 2))
        self._exchanged_s: Array = np.zeros((0, 2))

    def update(self, time_s: float, poses: Poses) -> Poses:
        """Smooth the next frame.

        Args:
            time_s: the frame's time in seconds.
            poses: N people with ``track_ids``; people without an id (-1, or no ids at all) and keypoints that are no
            numbers pass as they are.

        Returns:
            The same people. ``raw_keypoints_xy`` (N, 17, 2) holds the keypoints as they were before the first change.
        """
        raw = poses.keypoints_xy if poses.raw_keypoints_xy is None else poses.raw_keypoints_xy
        self._forget(time_s)
        if poses.track_ids is None or not len(poses):
            return replace(poses, raw_keypoints_xy=raw)
        named = np.flatnonzero(poses.track_ids > 0)
        self._admit(time_s, poses, named)
        rows = np.searchsorted(self._ids, poses.track_ids[named])
        size = box_size(poses.boxes_xyxy[named])
        elapsed = np.maximum(time_s - self._last_s[rows], SHORTEST_STEP_S)
        self._size[rows] += (1.0 - np.exp(-elapsed / SIZE_TAU_S)) * (size - self._size[rows])

        step = elapsed[:, None, None]
        measured = poses.keypoints_xy[named].astype(np.float64)
        known, unseen = np.isfinite(measured), np.isnan(self._smooth_xy[rows])
        self._smooth_xy[rows] = np.where(unseen, np.where(known, measured, 0.0), self._smooth_xy[rows])
        measured = np.where(known, measured, self._smooth_xy[rows])
        scale = self._size[rows, None, None]
        held, doubted = self._hold(rows, measured, step, scale)
        measured = np.where(held, measured[:, FLIP], measured)
        self._last_xy[rows] = measured
        scores = poses.keypoint_scores[named]
        scores = np.where(held[..., 0], scores[:, FLIP], scores)
        before, speed = self._smooth_xy[rows], self._speed[rows]
        beside = beside_counterpart(measured, before, EXCHANGED_FROM * scale)
        astray = beside & doubted
        belief = np.where(astray, 0.0, _belief(beside, scores))[..., None]
        moved = (measured - before) / (step * scale)
        speed = speed + _share(self.options.derivative_cutoff_hz, step) * belief * (moved - speed)
        pace = length(speed)[..., None] * belief
        rise = self.options.beta * np.square(pace) / np.maximum(pace + self.options.calm_speed, 1e-9)
        share = np.where(astray[..., None], 0.0, _share(self.options.min_cutoff_hz + rise, step))
        weight = np.square(belief)
        body = (weight * share * (measured - before)).sum(axis=1, keepdims=True)
        before = before + (1.0 - belief) * body / np.maximum(weight.sum(axis=1, keepdims=True), 1.0)
        smooth = before + share * (measured - before)
        self._smooth_xy[rows] = np.where(unseen & ~known, np.nan, smooth)
        self._speed[rows], self._last_s[rows] = speed, time_s

        keypoints = poses.keypoints_xy.copy()
        keypoints[named] = np.where(known, smooth, keypoints[named])
        return replace(poses, keypoints_xy=keypoints, raw_keypoints_xy=raw)

    def _hold(
        self, rows: IntArray, measured: Array, step: Array, scale: Array
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which joints have changed places with their counterparts, of people who, or whose legs, have not done so for
        long enough to be believed, (N, 17, 1); and which people did so lately and stand still, (N, 1). Of those who are
        believed from now on, joints change places in the filter's state."""
        exchanged, along = exchanged_sides(measured, self._smooth_xy[rows], self._last_xy[rows], scale, step)
        seconds = step[:, 0]
        lasted = np.maximum(self._exchanged_s[rows] + np.where(exchanged, seconds, -seconds), 0.0)
        believed = exchanged & (lasted > (EXCHANGED_HELD_SHARE * self._sided_s[rows]).clip(*EXCHANGED_HELD_S))
        if believed.any():
            change = (believed[:, None] & along).any(axis=-1, keepdims=True)
            for state in (self._smooth_xy, self._speed, self._last_xy):
                state[rows] = np.where(change, state[rows][:, FLIP], state[rows])
        lasted = np.where(believed, 0.0, lasted)
        self._exchanged_s[rows] = lasted
        self._sided_s[rows] = np.where(believed, 0.0, self._sided_s[rows] + np.where(exchanged, 0.0, seconds))
        doubted = lasted[:, 0] > 0
        if doubted.any():
            doubted &= length(np.median(self._speed[rows], axis=1)) < STILL_SPEED
        held = np.asarray((along & (exchanged & ~believed)[:, None]).any(axis=-1, keepdims=True), np.bool_)
        return held, doubted[:, None]

    def _forget(self, time_s: float) -> None:
        age = time_s - self._last_s
        fresh = (age <= self.options.max_gap_s) & (age >= 0)
        if not fresh.all():
            self._select(np.flatnonzero(fresh))

    def _select(self, rows: npt.NDArray[np.intp]) -> None:
        for name in ("_ids", "_last_s", "_size", "_smooth_xy", "_speed", "_last_xy", "_sided_s", "_exchanged_s"):
            setattr(self, name, getattr(self, name)[rows])

    def _admit(self, time_s: float, poses: Poses, named: npt.NDArray[np.intp]) -> None:
        """Start people who are new here: at rest, where they are; a keypoint that is no number, where it is first seen.
        Rows stay sorted by id."""
        assert poses.track_ids is not None
        known = set(self._ids.tolist())
        new = [row for row in named.tolist() if int(poses.track_ids[row]) not in known]
        if not new:
            return
        points = poses.keypoints_xy[new].astype(np.float64)
        points[~np.isfinite(points)] = np.nan
        self._ids = np.concatenate([self._ids, poses.track_ids[new]])
        self._last_s = np.concatenate([self._last_s, np.full(len(new), time_s)])
        self._size = np.concatenate([self._size, box_size(poses.boxes_xyxy[new])])
        self._smooth_xy = np.concatenate([self._smooth_xy, points])
        self._speed = np.concatenate([self._speed, np.zeros_like(points)])
        self._last_xy = np.concatenate([self._last_xy, points])
        self._sided_s = np.concatenate([self._sided_s, np.zeros((len(new), 2))])
        self._exchanged_s = np.concatenate([self._exchanged_s, np.zeros((len(new), 2))])
        self._select(np.argsort(self._ids, kind="stable"))


def _belief(beside: npt.NDArray[np.bool_], scores: FloatArray) -> Array:
    """How far each joint's jump is believed, (N, 17) in [0, 1].

    Args:
        beside: (N, 17) which joints have jumped to the other side.
        scores: (N, 17) keypoint scores.
    """
    heat = np.where(np.isnan(scores), 0.5, scores.astype(np.float64)) - 0.5
    belief: Array = np.where(beside, EXCHANGED_BELIEF, 1.0) * (heat / SURE_HEAT).clip(0.0, 1.0)
    return belief


def _share(cutoff_hz: float | Array, step_s: Array) -> Array:
    """How much of a new value a low-pass filter of that cutoff takes (Casiez et al., equations 5 and 6)."""
    share: Array = 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff_hz * step_s))
    return share
