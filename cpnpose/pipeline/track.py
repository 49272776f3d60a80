"""Identities: which pose of this frame is which person of the frames before.

Matching in stages after Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box" (2022):
confident poses take the people seen a moment ago, then weak poses take those still missing, and only then may confident
poses take people who were lost for longer, who are given back their id where their motion leads to that place. Unlike
there, a confident pose that fits a person far worse than a weak one comes after it. Likeness mixes the IoU of boxes,
the OKS of keypoints and the motion's own expectation. All times are seconds.

There is no appearance cue on purpose: ids depend on the poses alone, so that tracking a record again, or going on with
it after a crash, gives what the run itself gave.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cpnpose.pipeline.track_doubt import (
    around_several,
    likeness_within,
    newcomers,
    overlaid,
    pose_strength,
    telling_keypoints,
    touches_edge,
)
from cpnpose.pipeline.track_match import Array, assign
from cpnpose.pipeline.track_motion import BoxMotion
from cpnpose.pipeline.track_options import TrackerOptions
from cpnpose.pipeline.track_pairs import compare
from cpnpose.pose.types import IntArray, Poses

NO_ID = -1
RECENT_S = 0.5
"""Somebody missed for at most this long (or in one frame only) counts as seen a moment ago."""
TRUST_TAU_S = 1.0
"""A person's box score is averaged over about so many seconds."""
STRENGTH_TAU_S = 0.3
"""The strength of a person's pose is averaged over about so many seconds."""
TENTATIVE_S = 0.15
"""A person without an id is forgotten when missed for longer and in more than one frame."""

_OF_PERSON = (
    *("_ids", "_first_s", "_last_s", "_misses", "_best_score", "_trust", "_strength", "_entered", "_grouped"),
    *("_keypoints", "_counted"),
)


class PoseTracker:
    """Gives ids to poses, frame by frame. Memory grows with the people in view, never with the video.

    The result depends on the sequence of calls only, so the state can be made again from a record by calling
    :meth:`update` with its raw poses.
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self.options = options or TrackerOptions()
        self._motion = BoxMotion()
        self._ids: IntArray = np.zeros(0, np.int64)
        self._first_s: Array = np.zeros(0)
        self._last_s: Array = np.zeros(0)
        self._misses: IntArray = np.zeros(0, np.int64)
        self._best_score: Array = np.zeros(0)
        self._trust: Array = np.zeros(0)
        self._strength: Array = np.zeros(0)
        self._entered: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._grouped: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._keypoints: Array = np.zeros((0, 17, 2))
        self._counted: npt.NDArray[np.bool_] = np.zeros((0, 17), np.bool_)
        self._time_s: float | None = None
        self._next_id = 1

    def update(self, time_s: float, poses: Poses, frame_size: tuple[int, int] | None = None) -> Poses:
        """Give ids to the people of the next frame.

        Args:
            time_s: the frame's time in seconds; steps may have any length. A step back counts as no step.
            poses: N people, image pixels.
            frame_size: (height, width) in pixels; lets people be expected at the edge where they left.

        Returns:
            The same people in the same order with ``track_ids`` (N,) int64: from 1 in the order of confirmation, -1
            for poses that belong to nobody (yet).
        """
        first_frame = self._time_s is None
        elapsed = 0.0 if self._time_s is None else max(time_s - self._time_s, 0.0)
        self._time_s = time_s if self._time_s is None else max(time_s, self._time_s)
        self._keep(self._time_s - self._last_s <= self.options.memory_s)
        expected_before = self._motion.position[:, :2].copy()
        self._motion.predict(elapsed)
        self._keypoints = self._keypoints + (self._motion.position[:, :2] - expected_before)[:, None]

        strength = pose_strength(poses)
        owner, heirs, passed_over = self._match(poses, strength, frame_size)
        self._correct(poses, strength, owner)
        self._start(poses, strength, owner, frame_size)
        self._confirm(poses, owner, heirs, passed_over, first_frame)
        ids = np.full(len(poses), NO_ID, np.int64)
        owned = owner >= 0
        ids[owned] = self._ids[owner[owned]]
        self._keep((self._ids != NO_ID) | (self._misses <= 1) | (self._age() <= TENTATIVE_S))
        return replace(poses, track_ids=ids)

    def _match(
        self, poses: Poses, strength: Array, frame_size: tuple[int, int] | None
    ) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
        """Two rows of known people for each pose, (N,) int64 each, -1 for none: the owner; and, where the owner has no
        id yet, the person lost for longer whose id the owner would take over on confirmation. And which poses, (N,)
        bool, were passed over for a weak one that fits the person far better."""
        owner = np.full(len(poses), -1, np.int64)
        heirs = owner.copy()
        if not len(poses) or not len(self._ids):
            return owner, heirs, np.zeros(len(poses), np.bool_)
        options = self.options
        likeness, near, touching, back = compare(
            self._motion, self._keypoints, self._counted, poses, frame_size, options
        )

        confident = poses.box_scores >= options.confident_score
        weak = ~confident & (poses.box_scores >= options.weak_score)
        known = self._ids != NO_ID
        recent = (self._misses <= 1) | (self._age() <= RECENT_S)
        missing = np.ones(len(self._ids), np.bool_)
        sure = ((poses.box_scores >= options.sure_score) & (strength >= options.sure_pose))[None]
        slow = options.slow_score < options.confident_score
        trusted = slow | (self._trust >= options.confident_score)
        continuing = (known & recent & trusted)[:, None] & weak[None] & touching
        best_weak = np.where(continuing, likeness, 0.0).max(axis=1, keepdims=True)
        worse = confident[None] & (likeness < best_weak - options.far_better)
        passed_over = (near & worse).any(axis=0)
        seen, lost = known & recent, known & ~recent
        stages = (
            (seen, confident, near & ~worse),
            (seen & trusted, weak, touching),
            (seen, confident, near),
            (lost, confident, back & (touching | sure)),
            (~known, confident | (weak & slow), near),
        )
        for people, candidates, allowed in stages:
            free = (people & missing)[:, None] & (candidates & (owner < 0))[None]
            rows, columns = assign(likeness, allowed & free)
            owner[columns] = rows
            missing[rows] = False
        unnamed = (owner >= 0) & ~known[owner]
        rows, columns = assign(likeness, back & (lost & missing)[:, None] & unnamed[None])
        heirs[columns] = rows
        return owner, heirs, passed_over

    def _age(self) -> Array:
        """Seconds since each person was last seen, (T,)."""
        assert self._time_s is not None
        return self._time_s - self._last_s

    def _correct(self, poses: Poses, strength: Array, owner: IntArray) -> None:
        """Tell the known people where they were found."""
        columns = np.flatnonzero(owner >= 0)
        rows = owner[columns]
        self._misses += 1
        self._misses[rows] = 0
        unseen_s = self._age()[rows]
        for average, value, tau_s in (
            (self._trust, poses.box_scores, TRUST_TAU_S),
            (self._strength, strength, STRENGTH_TAU_S),
        ):
            share = 1.0 - np.exp(-unseen_s / tau_s)
            average[rows] += share * (value[columns] - average[rows])
        self._last_s[rows] = self._time_s
        trust = poses.box_scores[columns].astype(np.float64).clip(0.25, 1.0)
        self._motion.update(rows, poses.boxes_xyxy[columns], trust)
        self._keypoints[rows] = poses.keypoints_xy[columns]
        self._counted[rows] = telling_keypoints(poses)[columns]
        self._best_score[rows] = np.maximum(self._best_score[rows], poses.box_scores[columns])

    def _start(self, poses: Poses, strength: Array, owner: IntArray, frame_size: tuple[int, int] | None) -> None:
        """Begin new people, without ids yet, with the poses that nobody owns; writes their rows into ``owner``."""
        candidates = newcomers(poses, owner, self.options)
        if not len(candidates):
            return
        scores = poses.box_scores[candidates].astype(np.float64)
        known, added = len(self._ids), len(candidates)
        owner[candidates] = known + np.arange(added)
        self._motion.add(poses.boxes_xyxy[candidates])
        for name, values in (
            ("_ids", np.full(added, NO_ID, np.int64)),
            ("_first_s", np.full(added, self._time_s)),
            ("_last_s", np.full(added, self._time_s)),
            ("_misses", np.zeros(added, np.int64)),
            ("_best_score", scores),
            ("_trust", scores),
            ("_strength", strength[candidates]),
            ("_entered", touches_edge(poses.boxes_xyxy[candidates], frame_size)),
            ("_grouped", np.zeros(added, np.bool_)),
            ("_keypoints", poses.keypoints_xy[candidates].astype(np.float64)),
            ("_counted", telling_keypoints(poses)[candidates]),
        ):
            setattr(self, name, np.concatenate([getattr(self, name), values]))

    def _confirm(
        self,
        poses: Poses,
        owner: IntArray,
        heirs: IntArray,
        passed_over: npt.NDArray[np.bool_],
        first_frame: bool,
    ) -> None:
        """Give ids to those seen for long enough: as somebody who was lost, where one fits, else as somebody new. One
        false detection so never takes the id of a lost person. See :class:`TrackerOptions` for how long is enough."""
        options = self.options
        columns = np.flatnonzero(owner >= 0)
        columns = columns[np.argsort(owner[columns])]
        rows = owner[columns]
        unnamed = self._ids[rows] == NO_ID
        if not unnamed.any():
            return  # what else is noted here counts only until there is an id
        own, scores = poses.boxes_xyxy[columns], poses.box_scores[columns]
        better = ~unnamed[None] | (scores[None] > scores[:, None])
        over = overlaid(own) & better & unnamed[:, None]
        part = over.any(axis=1)
        twin = (over & (0.5 * options.duplicate_oks < likeness_within(poses.select(columns), over.T).T)).any(axis=1)
        self._grouped[rows] |= around_several(own, better) | passed_over[columns]
        grouped = self._grouped[rows]
        confident = self._best_score[rows] >= options.confident_score
        strong = self._strength[rows] >= options.sure_pose
        doubtful = ~confident | grouped | (~strong & (part | ~self._entered[rows]))
        wait = np.where(doubtful, options.slow_confirm_s, options.confirm_s)
        ready = self._last_s[rows] - self._first_s[rows] >= wait - 1e-6
        ready |= (self._best_score[rows] >= options.sure_score) & strong & ~twin & ~grouped
        ready |= first_frame & confident & (strong | ~part) & ~grouped
        lost = heirs[columns]
        returned = unnamed & ready & (lost >= 0)
        self._ids[rows[returned]] = self._ids[lost[returned]]
        self._ids[lost[returned]] = NO_ID
        self._last_s[lost[returned]] = -np.inf
        new = rows[unnamed & ready & ~returned]
        self._ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        if rows.all():
            return
        self._motion.keep(rows)
        for name in _OF_PERSON:
            setattr(self, name, getattr(self, name)[rows])
