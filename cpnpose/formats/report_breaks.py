"""Where tracking or confidence breaks in a record: short spans of time, with a kind and a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, FrameResult, Poses

MOST_BREAKS = 500
"""So many are kept with their times; the rest is only counted."""
LOW_SCORE = 0.7
"""A person whose mean keypoint score is below is uncertain. (A score is the heatmap's value plus 0.5.)"""
JUMP_SPEED = 6.0
"""Sizes of the person per second; a sprinter makes about 4."""
SPAN_S = 0.5
"""Frames of one kind that are no further apart make one span."""


@dataclass
class Break:
    """One span. Times in seconds."""

    kind: str
    """``gap``, ``jump``, ``low-confidence``, ``no-id``, ``filled`` or ``swapped``."""
    track_id: int
    start_s: float
    end_s: float
    frames: int = 1
    worst: float | None = None
    """gap: its seconds; jump: sizes per second; low-confidence: lowest mean score."""


@dataclass
class BreakFinder:
    """Takes frames in order; memory grows with the people and up to :data:`MOST_BREAKS` spans, not with the frames."""

    breaks: list[Break] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Number of spans of each kind, also of those that were not kept."""
    _open: dict[tuple[str, int], Break] = field(default_factory=dict)
    _last: dict[int, tuple[float, int, float, float]] = field(default_factory=dict)
    _number: int = -1

    def add(self, result: FrameResult) -> None:
        """Take in the next frame."""
        self._number += 1
        time_s, poses = result.frame.time_s, result.poses
        self._open = {key: span for key, span in self._open.items() if time_s - span.end_s <= SPAN_S}
        if not len(poses):
            return
        ids = np.full(len(poses), -1) if poses.track_ids is None else poses.track_ids
        mean_score = np.nan_to_num(poses.keypoint_scores).mean(axis=1)
        filled = _flagged(poses, FLAG_FILLED)
        swapped = _flagged(poses, FLAG_SWAPPED)
        box = poses.boxes_xyxy.astype(np.float64)
        size = np.maximum((box[:, 2:] - box[:, :2]).max(axis=1), 1.0)
        centre = (box[:, :2] + box[:, 2:]) / 2
        for row, track_id in enumerate(map(int, ids)):
            if track_id < 1:
                self._mark("no-id", -1, time_s)
                continue
            if track_id in self._last:
                before, number, x, y = self._last[track_id]
                elapsed = time_s - before
                if self._number - number > 1:
                    self._keep(Break("gap", track_id, before, time_s, self._number - number - 1, elapsed))
                elif elapsed > 0:
                    speed = float(np.hypot(centre[row, 0] - x, centre[row, 1] - y)) / size[row] / elapsed
                    if speed > JUMP_SPEED:
                        self._mark("jump", track_id, time_s, speed, highest=True)
            self._last[track_id] = (time_s, self._number, float(centre[row, 0]), float(centre[row, 1]))
            if mean_score[row] < LOW_SCORE:
                self._mark("low-confidence", track_id, time_s, float(mean_score[row]))
            if filled[row]:
                self._mark("filled", track_id, time_s)
            if swapped[row]:
                self._mark("swapped", track_id, time_s)

    def _mark(
        self, kind: str, track_id: int, time_s: float, worst: float | None = None, *, highest: bool = False
    ) -> None:
        """Lengthen the span that is open, or begin one."""
        span = self._open.get((kind, track_id))
        if span is None:
            span = Break(kind, track_id, time_s, time_s, 0, worst)
            self._open[kind, track_id] = span
            self._keep(span)
        if span.end_s < time_s or span.frames == 0:
            span.frames += 1
        span.end_s = time_s
        if worst is not None and span.worst is not None:
            span.worst = max(span.worst, worst) if highest else min(span.worst, worst)

    def _keep(self, span: Break) -> None:
        self.counts[span.kind] = self.counts.get(span.kind, 0) + 1
        if len(self.breaks) < MOST_BREAKS:
            self.breaks.append(span)


def _flagged(poses: Poses, bit: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which people have a keypoint with that bit, (N,) bool."""
    if poses.flags is None:
        return np.zeros(len(poses), np.bool_)
    return np.asarray(((poses.flags & bit) > 0).any(axis=1), np.bool_)
