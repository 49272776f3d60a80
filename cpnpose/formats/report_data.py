"""What the report page shows, gathered from a record in two passes: columns of small integers, in base64."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.formats.header import Header
from cpnpose.formats.report_breaks import LOW_SCORE, Break, BreakFinder
from cpnpose.pose.angles import ANGLE_NAMES, joint_angles
from cpnpose.pose.types import FrameResult

MOST_ROWS = 100_000
"""Most people-in-a-frame that the page carries; longer records are thinned to every second, third, ... frame."""
VISIT_GAP_S = 0.5
"""Somebody away for longer has two bars in the timeline."""
FULL_SCALE = 32000
NO_ANGLE = -32768
ANGLE_SCALE = 100.0
SCORE_SCALE = 100.0


@dataclass
class _Person:
    visits: list[list[float]]
    frames: int = 0
    score_sum: float = 0.0


@dataclass
class _Overview:
    """The first pass: everything that takes little space."""

    frames: int = 0
    rows: int = 0
    empty_frames: int = 0
    first_s: float | None = None
    last_s: float = 0.0
    reach: float = 1.0
    people: dict[int, _Person] = field(default_factory=dict)
    breaks: BreakFinder = field(default_factory=BreakFinder)

    def add(self, result: FrameResult) -> None:
        time_s, poses = result.frame.time_s, result.poses
        self.first_s = time_s if self.first_s is None else self.first_s
        self.last_s = max(self.last_s, time_s)
        self.frames += 1
        self.rows += len(poses)
        self.empty_frames += not len(poses)
        self.breaks.add(result)
        if not len(poses):
            return
        self.reach = max(self.reach, float(np.nan_to_num(poses.boxes_xyxy).max()))
        ids = np.full(len(poses), -1) if poses.track_ids is None else poses.track_ids
        means = np.nan_to_num(poses.keypoint_scores, posinf=0.0).mean(axis=1)
        for track_id, mean in zip(map(int, ids), map(float, means), strict=True):
            if track_id < 1:
                continue
            person = self.people.setdefault(track_id, _Person([[time_s, time_s]]))
            if time_s - person.visits[-1][1] > VISIT_GAP_S:
                person.visits.append([time_s, time_s])
            person.visits[-1][1] = time_s
            person.frames += 1
            person.score_sum += mean


def gather(header: Header, frames: Callable[[], Iterable[FrameResult]]) -> dict[str, Any]:
    """All that the page needs, as JSON values.

    Args:
        header: of the record.
        frames: gives the record's frames anew at each call; it is called twice.
    """
    overview = _Overview()
    for result in frames():
        overview.add(result)
    height, width = header.size or (0, 0)
    if not height or not width:
        height = width = int(np.ceil(overview.reach))
    every = max(1, -(-max(overview.rows, overview.frames) // MOST_ROWS))
    # Four times the picture on either side: keypoints may lie outside of it.
    scale = FULL_SCALE / (4.0 * max(height, width))
    return {
        "title": header.source,
        "generator": header.generator,
        "size": [height, width],
        "fps": None if header.fps is None else float(header.fps),
        "model": dict(header.model),
        "settings": dict(header.settings),
        "keypoints": list(header.keypoint_names),
        "skeleton": [list(pair) for pair in header.skeleton],
        "angles": list(ANGLE_NAMES),
        "lowScore": LOW_SCORE,
        "frameCount": overview.frames,
        "emptyFrames": overview.empty_frames,
        "rowCount": overview.rows,
        "every": every,
        "start": overview.first_s or 0.0,
        "end": overview.last_s,
        "people": [_person_entry(track_id, own) for track_id, own in sorted(overview.people.items())],
        "breaks": [_break_entry(span) for span in sorted(overview.breaks.breaks, key=lambda span: span.start_s)],
        "breakCounts": overview.breaks.counts,
        "scale": scale,
        "columns": _columns(frames(), every, scale),
    }


def _person_entry(track_id: int, person: _Person) -> dict[str, Any]:
    return {
        "id": track_id,
        "visits": [[round(a, 4), round(b, 4)] for a, b in person.visits],
        "frames": person.frames,
        "score": round(person.score_sum / person.frames, 3),
    }


def _break_entry(span: Break) -> dict[str, Any]:
    return {
        "kind": span.kind,
        "id": span.track_id,
        "start": round(span.start_s, 4),
        "end": round(span.end_s, 4),
        "frames": span.frames,
        "worst": None if span.worst is None else round(span.worst, 3),
    }


def _columns(frames: Iterable[FrameResult], every: int, scale: float) -> dict[str, dict[str, str]]:
    """The columns of the page: per frame ``time``, ``index`` and ``first`` (number of its first row, one more at the
    end); per row ``id``, ``xy`` (17 x 2), ``score`` (17), ``flags`` (17), ``box`` (4) and ``angle``."""
    times: list[float] = []
    indices: list[int] = []
    firsts = [0]
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("id", "xy", "score", "flags", "box", "angle")}
    for number, result in enumerate(frames):
        if number % every:
            continue
        poses = result.poses
        count = len(poses)
        times.append(result.frame.time_s)
        indices.append(result.frame.index)
        firsts.append(firsts[-1] + count)
        if not count:
            continue
        ids = np.full(count, -1) if poses.track_ids is None else poses.track_ids
        angles = joint_angles(poses.keypoints_xy, poses.keypoint_scores, flags=poses.flags)
        parts["id"].append(ids.astype("<i4"))
        parts["xy"].append(_small(poses.keypoints_xy, scale))
        scores = np.nan_to_num(poses.keypoint_scores, posinf=0.0)
        parts["score"].append(np.clip(np.round(scores * SCORE_SCALE), 0, 255).astype("u1"))
        parts["flags"].append(np.zeros((count, 17), "u1") if poses.flags is None else poses.flags.astype("u1"))
        parts["box"].append(_small(poses.boxes_xyxy, scale))
        small_angles = np.round(np.nan_to_num(angles) * ANGLE_SCALE)
        parts["angle"].append(np.where(np.isnan(angles), NO_ANGLE, small_angles).astype("<i2"))
    columns = {
        "time": _packed(np.array(times, "<f8"), "Float64Array"),
        "index": _packed(np.array(indices, "<i4"), "Int32Array"),
        "first": _packed(np.array(firsts, "<i4"), "Int32Array"),
    }
    kinds = {"id": "Int32Array", "score": "Uint8Array", "flags": "Uint8Array"}
    for name, arrays in parts.items():
        joined = np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0, "u1")
        columns[name] = _packed(joined, kinds.get(name, "Int16Array"))
    return columns


def _small(values: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.int16]:
    """Pixels as 16 bit integers; -32768 for what is no number."""
    small = np.clip(np.round(np.nan_to_num(values.astype(np.float64)) * scale), -FULL_SCALE, FULL_SCALE)
    return np.where(np.isfinite(values), small, NO_ANGLE).astype("<i2")


def _packed(array: npt.NDArray[Any], kind: str) -> dict[str, str]:
    return {"kind": kind, "data": base64.b64encode(array.tobytes()).decode("ascii")}
