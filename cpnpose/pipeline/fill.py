"""Gaps filled between what was seen before and after: offline, with bounded look-ahead.

Two kinds of gap are filled, both in a straight line over time: frames in which a person was missed (a row is added),
and joints that the network was not sure of in between (their place is replaced). Nothing is filled before the first or
after the last sight. Filled keypoints carry FLAG_FILLED.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cpnpose.errors import OptionError
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FLAG_FILLED, FloatArray, FrameResult, Poses

_ROUNDING_S = 1e-6
"""Differences of times are wrong by less: a gap of exactly the longest time is filled wherever it is in the clip."""
ONE_PERSON_FIELDS = ("keypoints_xy", "keypoint_scores", "scores", "boxes_xyxy")


@dataclass(frozen=True)
class FillOptions:
    """Which gaps are filled."""

    max_gap_s: float = 0.3
    """Longest time between the sights before and after."""
    min_score: float = 0.7
    """A joint that scores less counts as not seen. (A score is the heatmap's value plus 0.5.)"""

    def __post_init__(self) -> None:
        if self.max_gap_s < 0:
            raise OptionError(f"gaps of {self.max_gap_s} s cannot be filled; give seconds from 0 up")


@dataclass
class _Sight:
    """One person in one frame; the arrays are the sight's own and may be written."""

    time_s: float
    poses: Poses
    """N = 1."""
    flags: npt.NDArray[np.uint8]
    """(17,)."""
    changed: bool = False
    added: bool = False


@dataclass
class _Waiting:
    result: FrameResult
    people: dict[int, _Sight]


def fill_gaps(frames: Iterable[FrameResult], options: FillOptions | None = None) -> Iterator[FrameResult]:
    """Fill short gaps of tracked people.

    Args:
        frames: in order; only people with ``track_ids`` from 1 up are filled.
        options: see :class:`FillOptions`.

    Yields:
        The same frames, each after the following ``max_gap_s`` seconds were seen. Replaced joints keep the network's
        score; ``raw_keypoints_xy`` keeps their place. Added people stand after the others, with ``box_scores`` 0, the
        lower of the scores on both sides, and all joints flagged.
    """
    chosen = options or FillOptions()
    chosen = replace(chosen, max_gap_s=chosen.max_gap_s + _ROUNDING_S)
    waiting: deque[_Waiting] = deque()
    last_sight: dict[int, _Sight] = {}
    last_sure: dict[int, tuple[FloatArray, npt.NDArray[np.float64]]] = {}
    for result in frames:
        time_s = result.frame.time_s
        entry = _Waiting(result, _sights(result))
        for track_id in [i for i, sight in last_sight.items() if not 0 <= time_s - sight.time_s <= chosen.max_gap_s]:
            del last_sight[track_id], last_sure[track_id]
        for track_id, sight in entry.people.items():
            if track_id in last_sight:
                _add_missed(waiting, track_id, last_sight[track_id], sight)
            else:
                last_sure[track_id] = (np.zeros((NUM_KEYPOINTS, 2), np.float32), np.full(NUM_KEYPOINTS, -np.inf))
            last_sight[track_id] = sight
            _replace_unsure(waiting, track_id, sight, last_sure[track_id], chosen)
        waiting.append(entry)
        while waiting and not 0 <= time_s - waiting[0].result.frame.time_s <= chosen.max_gap_s:
            yield _finish(waiting.popleft())
    while waiting:
        yield _finish(waiting.popleft())


def without_filled(poses: Poses) -> Poses:
    """``poses`` without the people that :func:`fill_gaps` added."""
    if poses.flags is None:
        return poses
    added = (poses.box_scores == 0) & ((poses.flags & FLAG_FILLED) > 0).all(axis=1)
    return poses.select(~added)


def _sights(result: FrameResult) -> dict[int, _Sight]:
    ids = result.poses.track_ids
    sights: dict[int, _Sight] = {}
    for row in [] if ids is None else np.flatnonzero(ids > 0):
        own = result.poses.select([int(row)])
        flags = np.zeros(NUM_KEYPOINTS, np.uint8) if own.flags is None else own.flags[0]
        sights[int(own.track_ids[0])] = _Sight(result.frame.time_s, own, flags)  # type: ignore[index]
    return sights


def _add_missed(waiting: deque[_Waiting], track_id: int, before: _Sight, after: _Sight) -> None:
    """Put the person into the waiting frames between two sights."""
    span = after.time_s - before.time_s
    for entry in waiting:
        time_s = entry.result.frame.time_s
        if not before.time_s < time_s < after.time_s or track_id in entry.people:
            continue
        share = np.float32((time_s - before.time_s) / span)
        older, newer = before.poses, after.poses
        mixed = {name: (1 - share) * getattr(older, name) + share * getattr(newer, name) for name in ONE_PERSON_FIELDS}
        mixed["keypoint_scores"] = np.minimum(older.keypoint_scores, newer.keypoint_scores)
        mixed["scores"] = np.minimum(older.scores, newer.scores)
        poses = replace(older, **mixed, box_scores=np.zeros(1, np.float32), raw_keypoints_xy=None, uncertainty_px=None)
        flags = np.full(NUM_KEYPOINTS, FLAG_FILLED, np.uint8)
        entry.people[track_id] = _Sight(time_s, poses, flags, changed=True, added=True)


def _replace_unsure(
    waiting: deque[_Waiting],
    track_id: int,
    sight: _Sight,
    last_sure: tuple[FloatArray, npt.NDArray[np.float64]],
    options: FillOptions,
) -> None:
    """Put the joints that are sure now on a line with their last sure place in the waiting frames between; updates
    ``last_sure``, the place (17, 2) and time (17,) of each joint."""
    place, seen_s = last_sure
    now = sight.poses.keypoints_xy[0]
    sure = sight.poses.keypoint_scores[0] >= options.min_score
    span = sight.time_s - seen_s
    closing = sure & (span <= options.max_gap_s) & (span > 0)
    for entry in waiting:
        between = entry.people.get(track_id)
        if between is None:
            continue
        joints = np.flatnonzero(closing & (seen_s < between.time_s) & (between.time_s < sight.time_s))
        if len(joints):
            share = ((between.time_s - seen_s[joints]) / span[joints])[:, None]
            keypoints = between.poses.keypoints_xy.copy()
            keypoints[0, joints] = (1 - share) * place[joints] + share * now[joints]
            raw = between.poses.raw_keypoints_xy
            between.poses = replace(
                between.poses,
                keypoints_xy=keypoints,
                raw_keypoints_xy=between.poses.keypoints_xy if raw is None else raw,
            )
            between.flags = between.flags.copy()
            between.flags[joints] |= np.uint8(FLAG_FILLED)
            between.changed = True
    place[sure] = now[sure]
    seen_s[sure] = sight.time_s


def _finish(entry: _Waiting) -> FrameResult:
    """The frame with the changed people in their rows and the added ones behind."""
    if not any(sight.changed for sight in entry.people.values()):
        return entry.result
    poses = entry.result.poses
    assert poses.track_ids is not None or all(sight.added for sight in entry.people.values())
    rows: list[tuple[Poses, npt.NDArray[np.uint8]]] = []
    for row in range(len(poses)):
        own = poses.select([row])
        sight = entry.people.get(int(own.track_ids[0])) if own.track_ids is not None else None
        unchanged = np.zeros(NUM_KEYPOINTS, np.uint8) if own.flags is None else own.flags[0]
        rows.append((own, unchanged) if sight is None else (sight.poses, sight.flags))
    rows += [(sight.poses, sight.flags) for sight in entry.people.values() if sight.added]
    people = [person for person, _ in rows]
    joined = {name: _join(people, name) for name in vars(people[0])}
    joined["flags"] = np.stack([flags for _, flags in rows])
    return replace(entry.result, poses=Poses(**joined))  # type: ignore[arg-type]


def _join(people: list[Poses], name: str) -> npt.NDArray[np.generic] | None:
    """One field of all people; where only some have it, raw keypoints are the keypoints and uncertainty is NaN."""
    values = [getattr(person, name) for person in people]
    if all(value is None for value in values):
        return None
    if name == "raw_keypoints_xy":
        values = [person.keypoints_xy if v is None else v for person, v in zip(people, values, strict=True)]
    elif name == "uncertainty_px":
        values = [np.full((1, NUM_KEYPOINTS), np.nan, np.float32) if v is None else v for v in values]
    elif name == "track_ids":
        values = [np.full(1, -1, np.int64) if v is None else v for v in values]
    elif name == "flags":
        return None
    return np.concatenate(values)
