"""What makes a found pose doubtful: too weak, a part of somebody else, or come from nowhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cpnpose.pipeline.track_match import Array, covered, iou, iou_of_smaller, pose_likeness
from cpnpose.pipeline.track_motion import box_size, boxes_to_centres
from cpnpose.pipeline.track_options import TrackerOptions
from cpnpose.pose.types import FloatArray, IntArray, Poses

APART = 0.5
"""Greatest share of the smaller of two boxes that may lie in the other one, where both are people of their own."""
_MEMBER_SHARE, _HULL_IOU = 0.7, 0.7
"""Least share of a person's box in the box around several, and least IoU of that with the box around them all."""
EDGE_SHARE = 0.1
"""A box that comes so near to the picture's edge, in shares of its own longer side, touches it."""


def pose_strength(poses: Poses) -> Array:
    """How sure the poses are: the mean of the keypoint scores, (N,); what is no number counts as nothing seen (0.5)."""
    scores = poses.keypoint_scores.astype(np.float64)
    strength: Array = np.where(np.isfinite(scores), scores, 0.5).mean(axis=1)
    return strength


def telling_keypoints(poses: Poses) -> npt.NDArray[np.bool_]:
    """Keypoints that say something about the pose: those that score at least 0.6 of the person's best. (N, 17)."""
    scores = poses.keypoint_scores
    best = np.where(np.isfinite(scores), scores, np.float32(0.0)).max(axis=1, keepdims=True, initial=0.0)
    strong = scores >= 0.6 * best
    return np.asarray(strong & np.isfinite(poses.keypoints_xy).all(axis=-1), np.bool_)


def touches_edge(boxes_xyxy: FloatArray, frame_size: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
    """Which boxes (N, 4) reach the edge of the picture (height, width), where people come in and go out. Where the
    picture's size is not known, all might."""
    if frame_size is None:
        return np.ones(len(boxes_xyxy), np.bool_)
    height, width = frame_size
    margin = EDGE_SHARE * box_size(boxes_xyxy)[:, None]
    inner = np.concatenate([boxes_xyxy[:, :2], np.array([width, height]) - boxes_xyxy[:, 2:]], axis=1)
    return np.asarray((inner <= margin).any(axis=1), np.bool_)


def overlaid(boxes_xyxy: FloatArray) -> npt.NDArray[np.bool_]:
    """Which boxes (N, 4) are mostly one with which others, and with themselves, (N, N): where the other one is of a
    better pose, a part of that person, or a box around several."""
    return np.asarray(iou_of_smaller(boxes_xyxy, boxes_xyxy) > APART, np.bool_)


def around_several(boxes_xyxy: FloatArray, better: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which boxes (N, 4) are the box around two or more people of better poses who stand together.

    Args:
        boxes_xyxy: pixels.
        better: (N, N); whether the column's pose is the better one.

    Returns:
        (N,) bool. Somebody near the camera may hide several people too, but seldom with a box that ends where theirs
        do.
    """
    members = (covered(boxes_xyxy, boxes_xyxy).T > _MEMBER_SHARE) & better
    corners = np.asarray(boxes_xyxy, np.float64)[None].repeat(len(boxes_xyxy), axis=0)  # (N, N of the members, 4)
    low = np.where(members[..., None], corners[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(members[..., None], corners[..., 2:], -np.inf).max(axis=1, initial=-np.inf)
    several = members.sum(axis=1) > 1
    hull = np.where(several[:, None], np.concatenate([low, high], axis=1), 0.0)
    return np.asarray(several & (iou(boxes_xyxy, hull).diagonal() > _HULL_IOU), np.bool_)


def likeness_within(poses: Poses, wanted: npt.NDArray[np.bool_]) -> Array:
    """How alike the poses of one frame are, seen from each one's telling keypoints: (N of those, N), 0 to 1; 0 for
    pairs that are not ``wanted``, (N, N)."""
    area = boxes_to_centres(poses.boxes_xyxy)[:, 2:].prod(axis=1)
    return pose_likeness(poses.keypoints_xy, poses.keypoints_xy, telling_keypoints(poses), area, wanted)


def newcomers(poses: Poses, owner: IntArray, options: TrackerOptions) -> IntArray:
    """The poses without owner (-1 in ``owner``, (N,)) that begin a person, best first: no second detections of somebody
    else in the frame. Poses that are not confident must also stand apart: a part of a person is often found as one
    more."""
    candidates = np.flatnonzero((owner < 0) & (poses.box_scores >= options.slow_score))
    candidates = candidates[np.argsort(-poses.box_scores[candidates], kind="stable")]
    if not len(candidates):
        return candidates
    similar = likeness_within(poses, np.isin(np.arange(len(poses)), candidates)[None].repeat(len(poses), axis=0))
    double = similar > options.duplicate_oks
    slow = poses.box_scores < options.confident_score
    shared = iou_of_smaller(poses.boxes_xyxy, poses.boxes_xyxy)
    double |= slow[None] & ((similar > 0.5 * options.duplicate_oks) | (shared > APART))
    accepted = owner >= 0
    for column in candidates:  # each is compared with those accepted before
        accepted[column] = not double[accepted, column].any()
    return candidates[accepted[candidates]]
