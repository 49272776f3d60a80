"""Identities: which pose of this frame is which person of the frames before.

Matching in stages after Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box" (2022):
confident poses take the people seen a moment ago, then weak poses take those still missing, and only then may confident
poses take people who were lost for longer, who are given back their id where their motion leads to that place. Likeness
mixes the IoU of boxes, the OKS of keypoints and the motion's own expectation. All times are seconds.

There is no appearance cue on purpose: ids depend on the poses alone, so that tracking a record again, or going on with
it after a crash, gives what the run itself gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cpnpose.errors import OptionError
from cpnpose.pipeline.track_match import Array, assign, covered, iou, pose_likeness
from cpnpose.pipeline.track_motion import BoxMotion, box_size, boxes_to_centres
from cpnpose.pose.types import FloatArray, IntArray, Poses

NO_ID = -1
GATE = 16.0
"""Greatest squared distance from the expected place, in expected errors: 4 sigma."""
RECENT_S = 0.5
"""Somebody missed for at most this long (or in one frame only) counts as seen a moment ago."""
APART = 0.4
"""Greatest share of a doubtful newcomer's box that may lie in another one's."""
TRUST_TAU_S = 1.0
"""A person's box score is averaged over about so many seconds."""
TENTATIVE_MISSES = 2
"""A person without an id is forgotten after so many frames missed in a row."""


@dataclass(frozen=True)
class TrackerOptions:
    """How ids are given. Box scores are the detector's, in [0, 1]."""

    memory_s: float = 2.5
    """Somebody who comes back within so many seconds keeps the id, where the motion leads there."""
    confirm_s: float = 0.2
    """A person gets an id after being seen for so long; at once in the first frame or with ``sure_score``."""
    confident_score: float = 0.5
    """Box score from which a pose starts a person."""
    weak_score: float = 0.1
    """Box score from which a pose may continue a person."""
    slow_score: float = 0.25
    """Box score from which a pose that stands apart from all others starts a person too, for ``slow_confirm_s``. Where
    it is not below ``confident_score``, weak poses start nobody, and continue only those who were confident for most of
    the last second: a weak pose that gets no id then leaves no trace in the tracker."""
    slow_confirm_s: float = 1.0
    """Somebody who never reached ``confident_score`` gets an id after being seen for so long."""
    sure_score: float = 0.9
    """Box score from which a person gets an id at once."""
    reach: float = 1.0
    """How far, in sizes of the person, the error of the expected place may grow while the person is lost."""
    min_likeness: float = 0.1
    """Likeness, 0 to 1, under which a pose is not the same person."""
    duplicate_oks: float = 0.8
    """A new pose this similar to one that has an owner in the same frame is a second detection of that person."""

    def __post_init__(self) -> None:
        if self.memory_s < 0 or self.confirm_s < 0:
            raise OptionError(
                f"track memory ({self.memory_s} s) and confirmation ({self.confirm_s} s) cannot be negative; "
                "give seconds from 0 up"
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

        owner, heirs = self._match(poses, frame_size)
        self._correct(poses, owner, heirs)
        self._start(poses, owner, first_frame)
        ids = np.full(len(poses), NO_ID, np.int64)
        ids[owner >= 0] = self._ids[owner[owner >= 0]]
        self._keep((self._ids != NO_ID) | (self._misses < TENTATIVE_MISSES))
        return replace(poses, track_ids=ids)

    def _match(self, poses: Poses, frame_size: tuple[int, int] | None) -> tuple[IntArray, IntArray]:
        """Two rows of known people for each pose, (N,) int64 each, -1 for none: the owner; and, where the owner has no
        id yet, the person lost for longer whose id the owner would take over on confirmation."""
        owner = np.full(len(poses), -1, np.int64)
        heirs = owner.copy()
        if not len(poses) or not len(self._ids):
            return owner, heirs
        options = self.options
        boxes = self._motion.boxes(frame_size)
        overlap = iou(boxes, poses.boxes_xyxy)
        area = boxes_to_centres(boxes)[:, 2:].prod(axis=1)
        similar = pose_likeness(poses.keypoints_xy, self._keypoints, self._counted, area)
        distance = self._motion.distance(poses.boxes_xyxy, frame_size, options.reach)
        likeness = 0.35 * overlap + 0.35 * similar + 0.3 * np.maximum(1.0 - distance / GATE, 0.0)
        ratio = box_size(poses.boxes_xyxy)[None] / self._motion.size[:, None]
        close = (distance <= GATE) | (overlap + similar >= 0.7)
        near = close & (likeness >= options.min_likeness) & (ratio > 0.4) & (ratio < 2.5)
        touching = near & (overlap + similar >= 0.5)
        back = near & (ratio > 0.6) & (ratio < 1.7)

        confident = poses.box_scores >= options.confident_score
        weak = ~confident & (poses.box_scores >= options.weak_score)
        known = self._ids != NO_ID
        recent = (self._misses <= 1) | (self._age() <= RECENT_S)
        missing = np.ones(len(self._ids), np.bool_)
        sure = poses.box_scores[None] >= options.sure_score
        slow = options.slow_score < options.confident_score
        trusted = slow | (self._trust >= options.confident_score)
        stages = (
            (known & recent, confident, near),
            (known & recent & trusted, weak, touching),
            (known & ~recent, confident, back & (touching | sure)),
            (~known, confident | (weak & slow), near),
        )
        for people, candidates, allowed in stages:
            free = (people & missing)[:, None] & (candidates & (owner < 0))[None]
            rows, columns = assign(likeness, allowed & free)
            owner[columns] = rows
            missing[rows] = False
        unnamed = (owner >= 0) & ~known[owner]
        rows, columns = assign(likeness, back & (known & ~recent & missing)[:, None] & unnamed[None])
        heirs[columns] = rows
        return owner, heirs

    def _age(self) -> Array:
        """Seconds since each person was last seen, (T,)."""
        assert self._time_s is not None
        return self._time_s - self._last_s

    def _correct(self, poses: Poses, owner: IntArray, heirs: IntArray) -> None:
        """Tell the known people where they were found, and confirm those seen for long enough: as somebody who was
        lost, where one fits, else as somebody new. One false detection so never takes the id of a lost person."""
        columns = np.flatnonzero(owner >= 0)
        rows = owner[columns]
        self._misses += 1
        self._misses[rows] = 0
        share = 1.0 - np.exp(-self._age()[rows] / TRUST_TAU_S)
        self._trust[rows] += share * (poses.box_scores[columns] - self._trust[rows])
        self._last_s[rows] = self._time_s
        trust = np.clip(poses.box_scores[columns].astype(np.float64), 0.25, 1.0)
        self._motion.update(rows, poses.boxes_xyxy[columns], trust)
        self._keypoints[rows] = poses.keypoints_xy[columns]
        self._counted[rows] = _counted(poses.keypoints_xy[columns], poses.keypoint_scores[columns])
        self._best_score[rows] = np.maximum(self._best_score[rows], poses.box_scores[columns])
        slow = self._best_score[rows] < self.options.confident_score
        wait = np.where(slow, self.options.slow_confirm_s, self.options.confirm_s)
        old_enough = self._last_s[rows] - self._first_s[rows] >= wait - 1e-6
        sure = self._best_score[rows] >= self.options.sure_score
        confirmed = (self._ids[rows] == NO_ID) & (old_enough | sure)
        lost = heirs[columns]
        returned = confirmed & (lost >= 0)
        self._ids[rows[returned]] = self._ids[lost[returned]]
        self._ids[lost[returned]] = NO_ID
        self._misses[lost[returned]] = TENTATIVE_MISSES
        self._confirm(rows[confirmed & ~returned])

    def _start(self, poses: Poses, owner: IntArray, first_frame: bool) -> None:
        """Begin new people with the poses that nobody owns; writes their rows into ``owner``."""
        candidates = self._newcomers(poses, owner)
        scores = poses.box_scores[candidates].astype(np.float64)
        known, added = len(self._ids), len(candidates)
        owner[candidates] = known + np.arange(added)
        self._motion.add(poses.boxes_xyxy[candidates])
        counted = _counted(poses.keypoints_xy[candidates], poses.keypoint_scores[candidates])
        for name, values in (
            ("_ids", np.full(added, NO_ID, np.int64)),
            ("_first_s", np.full(added, self._time_s)),
            ("_last_s", np.full(added, self._time_s)),
            ("_misses", np.zeros(added, np.int64)),
            ("_best_score", scores),
            ("_trust", scores),
            ("_keypoints", poses.keypoints_xy[candidates].astype(np.float64)),
            ("_counted", counted),
        ):
            setattr(self, name, np.concatenate([getattr(self, name), values]))
        at_once = (first_frame or self.options.confirm_s == 0) & (scores >= self.options.confident_score)
        self._confirm(known + np.flatnonzero(at_once | (scores >= self.options.sure_score)))

    def _newcomers(self, poses: Poses, owner: IntArray) -> IntArray:
        """The poses without owner that begin a person, best first: no second detections of somebody else in the frame.
        Poses that are not confident must also stand apart: a part of a person is often found as one more."""
        options = self.options
        candidates = np.flatnonzero((owner < 0) & (poses.box_scores >= options.slow_score))
        candidates = candidates[np.argsort(-poses.box_scores[candidates], kind="stable")]
        if not len(candidates):
            return candidates
        area = boxes_to_centres(poses.boxes_xyxy)[:, 2:].prod(axis=1)
        counted = _counted(poses.keypoints_xy, poses.keypoint_scores)
        similar = pose_likeness(poses.keypoints_xy, poses.keypoints_xy, counted, area)
        double = similar > options.duplicate_oks
        slow = poses.box_scores < options.confident_score
        inside = covered(poses.boxes_xyxy, poses.boxes_xyxy).T
        double |= slow[None] & ((similar > 0.5 * options.duplicate_oks) | (inside > APART))
        accepted = owner >= 0
        for column in candidates:  # each is compared with those accepted before
            accepted[column] = not double[accepted, column].any()
        return candidates[accepted[candidates]]

    def _confirm(self, rows: IntArray) -> None:
        self._ids[rows] = self._next_id + np.arange(len(rows))
        self._next_id += len(rows)

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        if rows.all():
            return
        self._motion.keep(rows)
        for name in ("_ids", "_first_s", "_last_s", "_misses", "_best_score", "_trust", "_keypoints", "_counted"):
            setattr(self, name, getattr(self, name)[rows])


def _counted(keypoints_xy: FloatArray, keypoint_scores: FloatArray) -> npt.NDArray[np.bool_]:
    """Keypoints that say something about the pose: those that score at least 0.6 of the person's best. (N, 17)."""
    best = np.nan_to_num(keypoint_scores, posinf=0.0).max(axis=1, keepdims=True, initial=0.0)
    return np.asarray((keypoint_scores >= 0.6 * best) & np.isfinite(keypoints_xy).all(axis=-1), np.bool_)
