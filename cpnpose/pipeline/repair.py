"""Left and right exchanged by the network, found by motion and put right: offline, with bounded look-ahead.

For each person four groups of joints (eyes and ears, shoulders and hips, elbows and wrists, knees and ankles) are, in
every frame, either as the network says or exchanged. The cheapest sequence is found by dynamic programming (Viterbi)
over pairs of states: it costs to be where the motion of the two frames before does not lead, to change from one state
to the other, and, by time, to be exchanged, so that only short errors are repaired and a person who has turned round
keeps the network's word. The decision for a frame falls ``look_ahead_s`` after it; memory does not grow with the video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from cpnpose.pipeline.track_motion import box_size
from cpnpose.pose.types import FLAG_SWAPPED, FrameResult, Poses

Array = npt.NDArray[np.float64]

GROUPS = np.array(
    [
        [[1, 2], [3, 4]],
        [[5, 6], [11, 12]],
        [[7, 8], [9, 10]],
        [[13, 14], [15, 16]],
    ]
)
"""(4 groups, 2 pairs, left and right) keypoint indices that are exchanged together."""
CALM = 0.03
"""Error of a resting joint's place, in sizes of the person."""
BENDING = 5.0
"""Error of the expected place by change of speed, in sizes per second squared."""
STARTING = 1.5
"""Error of the expected place where the speed is not known yet, in sizes per second."""
SURE_STEP_S = 0.02
"""The speed between frames that are closer than this is trusted less, since it is mostly noise."""
HIGHEST = 9.0
"""Largest cost of one joint: beyond 3 errors it is as wrong as can be."""
CHANGE_COST = 5.0
"""Cost of going from one state to the other."""
SURE_HEAT = 0.4
"""Heatmap value (score less 0.5) from which a joint counts fully; at 0 it does not count."""


@dataclass(frozen=True)
class SwapOptions:
    """Which exchanges are repaired."""

    look_ahead_s: float = 1.0
    """Seconds that are looked ahead before a frame is decided."""
    longest_s: float = 0.6
    """Exchanges that last longer are believed to be the network's better knowledge."""
    max_gap_s: float = 0.3
    """A person missed for longer starts anew."""


@dataclass
class _Track:
    """One person's undecided frames and the costs of the four pairs of states in the newest of them."""

    cost: Array
    """(4, before, now): of the best sequence that ends with these two states."""
    places: Array
    """(before and now, 4, state, pair, side, 2)."""
    times: tuple[float, float]
    heat: Array
    pending: deque[tuple[int, npt.NDArray[np.int64]]] = field(default_factory=deque)
    """Number of the frame, and for each group and pair of states (before, now) the best state before those."""


def repair_swaps(frames: Iterable[FrameResult], options: SwapOptions | None = None) -> Iterator[FrameResult]:
    """Exchange left and right back where the motion says that the network confused them.

    Args:
        frames: in order; people need ``track_ids``, those without an id pass as they are.
        options: see :class:`SwapOptions`.

    Yields:
        The same frames with the same people. Exchanged keypoints (positions, scores, uncertainty) carry FLAG_SWAPPED;
        ``raw_keypoints_xy`` holds the keypoints as they were before the first change.
    """
    chosen = options or SwapOptions()
    waiting: deque[tuple[int, FrameResult, dict[int, npt.NDArray[np.bool_]]]] = deque()
    tracks: dict[int, _Track] = {}
    for number, result in enumerate(frames):
        time_s = result.frame.time_s
        waiting.append((number, result, {}))
        first = waiting[0][0]
        for track_id in [i for i, track in tracks.items() if not 0 <= time_s - track.times[1] <= chosen.max_gap_s]:
            _decide(track_id, tracks.pop(track_id), number, waiting, first)
        _advance(tracks, number, result, chosen)
        while waiting and time_s - waiting[0][1].frame.time_s >= chosen.look_ahead_s:
            oldest = waiting[0][0]
            for track_id, track in tracks.items():
                _decide(track_id, track, oldest, waiting, oldest)
            _, ready, swaps = waiting.popleft()
            yield _apply(ready, swaps)
    for track_id, track in tracks.items():
        if waiting:
            _decide(track_id, track, waiting[-1][0], waiting, waiting[0][0])
    for _, ready, swaps in waiting:
        yield _apply(ready, swaps)


def _states(poses: Poses, row: int) -> tuple[Array, Array]:
    """Places of one person's groups in both states, (4, state, pair, side, 2), and the weight of each pair, (4, 2): 0
    where a score is no number."""
    points = poses.keypoints_xy[row].astype(np.float64)[GROUPS]
    heat = np.nan_to_num(poses.keypoint_scores[row].astype(np.float64)[GROUPS] - 0.5)
    weight = np.clip(heat / SURE_HEAT, 0.0, 1.0)
    return np.stack([points, points[:, :, ::-1]], axis=1), weight.min(axis=-1)


def _advance(tracks: dict[int, _Track], number: int, result: FrameResult, options: SwapOptions) -> None:
    """Take the newest frame into the costs of the people in it."""
    poses = result.poses
    if poses.track_ids is None:
        return
    time_s = result.frame.time_s
    sizes = box_size(poses.boxes_xyxy) if len(poses) else np.zeros(0)
    own_cost = 4.0 * HIGHEST / options.longest_s
    for row in np.flatnonzero(poses.track_ids > 0):
        track_id = int(poses.track_ids[row])
        places, heat = _states(poses, int(row))
        track = tracks.get(track_id)
        if track is None:
            cost = np.full((len(GROUPS), 2, 2), np.inf)
            cost[:, 0, 0], cost[:, 1, 1] = 0.0, CHANGE_COST
            back = np.tile(np.arange(2)[None, :, None], (len(GROUPS), 1, 2))
            track = _Track(cost, np.stack([places, places]), (time_s, time_s), heat)
            track.pending.append((number, back))
            tracks[track_id] = track
            continue
        step, before = max(time_s - track.times[1], 1e-3), track.times[1] - track.times[0]
        older, newer = track.places
        # Axes from here: group, state two frames ago, state before, state now, pair, side, xy.
        last = newer[:, None, :, None]
        steps = step / max(before, SURE_STEP_S) if before > 0 else 0.0
        drift = (last - older[:, :, None, None]) * steps
        error = CALM + (BENDING * step * (step + before) / 2 if before > 0 else STARTING * step)
        missed = np.linalg.norm(places[:, None, None] - (last + drift), axis=-1) / (error * sizes[row])
        joint_cost = (
            np.fmin(np.square(missed).sum(axis=-1) / 2, HIGHEST) * np.minimum(heat, track.heat)[:, None, None, None]
        )
        total = track.cost[..., None] + joint_cost.sum(axis=-1)
        total = total + CHANGE_COST * (1.0 - np.eye(2))[None, None]
        total[..., 1] += own_cost * step
        back = total.argmin(axis=1)
        best = total.min(axis=1)
        track.cost = best - best.min(axis=(1, 2), keepdims=True)
        track.pending.append((number, back))
        track.places, track.times, track.heat = np.stack([newer, places]), (track.times[1], time_s), heat


def _decide(
    track_id: int,
    track: _Track,
    last: int,
    waiting: deque[tuple[int, FrameResult, dict[int, npt.NDArray[np.bool_]]]],
    first: int,
) -> None:
    """Write the person's states in the frames up to number ``last`` into ``waiting``, whose first number is ``first``,
    and forget them. The states are those of the best sequence up to now."""
    if not track.pending or track.pending[0][0] > last:
        return
    group = np.arange(len(GROUPS))
    before, now = np.divmod(track.cost.reshape(len(GROUPS), 4).argmin(axis=1), 2)
    for number, back in reversed(track.pending):
        if number <= last:
            waiting[number - first][2][track_id] = now.astype(np.bool_)
        before, now = back[group, before, now], before
    while track.pending and track.pending[0][0] <= last:
        track.pending.popleft()


def _apply(result: FrameResult, swaps: dict[int, npt.NDArray[np.bool_]]) -> FrameResult:
    """The frame with the groups exchanged that ``swaps`` (id -> (4,) bool) names."""
    poses = result.poses
    if poses.track_ids is None or not any(swap.any() for swap in swaps.values()):
        return result
    order = np.tile(np.arange(poses.keypoints_xy.shape[1]), (len(poses), 1))
    for row, track_id in enumerate(poses.track_ids):
        pairs = GROUPS[swaps.get(int(track_id), np.zeros(len(GROUPS), np.bool_))].reshape(-1, 2)
        order[row, pairs] = pairs[:, ::-1]
    people = np.arange(len(poses))[:, None]
    changed = order != np.arange(order.shape[1])
    flags = np.zeros(order.shape, np.uint8) if poses.flags is None else poses.flags[people, order]
    return replace(
        result,
        poses=replace(
            poses,
            keypoints_xy=poses.keypoints_xy[people, order],
            keypoint_scores=poses.keypoint_scores[people, order],
            uncertainty_px=None if poses.uncertainty_px is None else poses.uncertainty_px[people, order],
            raw_keypoints_xy=poses.keypoints_xy if poses.raw_keypoints_xy is None else poses.raw_keypoints_xy,
            flags=(flags | np.where(changed, FLAG_SWAPPED, 0).astype(np.uint8)).astype(np.uint8),
        ),
    )
