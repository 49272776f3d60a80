"""Boxes between two detections: from the last keypoints, until a person is lost or the scene cuts."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.pose.geometry import box_iou
from cpnpose.pose.types import Detections, FloatArray, ImageArray, Poses

_NO_JOINT = 0.5  # the score of an empty heatmap
_SURE = 0.3  # share of a person's surest joint from which a joint counts
_FEWEST_JOINTS = 3
_LOST_BELOW = 0.5  # share of the strength at the detection
_FOLLOWED_ABOVE = 0.15  # strength; those who are hardly seen anyway cannot be lost
_MERGED_ABOVE = 0.8  # IoU of two people's boxes
_LARGEST_GROWTH = 2.0
_THUMBNAIL = 32
_CUT_ABOVE = 30.0  # mean difference of two thumbnails, of 255


class SceneCuts:
    """Tells at which frame another scene begins. Feed it every frame in order."""

    def __init__(self) -> None:
        self._last: npt.NDArray[np.float32] | None = None

    def is_cut(self, image: ImageArray) -> bool:
        """Whether this image (H, W, 3) is of another scene than the one before it."""
        step = max(1, min(image.shape[:2]) // (4 * _THUMBNAIL))
        small = cv2.resize(image[::step, ::step], (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        last, self._last = self._last, np.asarray(small, np.float32)
        return last is not None and float(np.abs(self._last - last).mean()) > _CUT_ABOVE


class CarriedBoxes:
    """The people of one detection, followed from frame to frame by their keypoints.

    Each box keeps its place relative to the person's sure joints: as far outside of them, in units of their extent,
    as the detector drew it.

    Args:
        poses: of the frame in which the people were detected; their boxes are the detector's.
    """

    def __init__(self, poses: Poses) -> None:
        self._first = poses
        self._last_boxes = poses.boxes_xyxy
        self._strength = _strength(poses)
        self._apart = ~_overlapping(poses.boxes_xyxy)

    def next(self, poses: Poses) -> Detections:
        """Boxes for the next frame.

        Args:
            poses: of the frame before it, the same people in the same order.

        Returns:
            (N, 4) boxes and the scores of the detection.
        """
        first = self._first
        shared = _sure(first) & _sure(poses)  # (N, 17): a joint that comes or goes must not move the box
        before, now = _extent(first.keypoints_xy, shared), _extent(poses.keypoints_xy, shared)
        sizes_before, sizes_now = _longer_side(before), _longer_side(now)
        growth = np.clip(sizes_now / np.maximum(sizes_before, 1.0), 1 / _LARGEST_GROWTH, _LARGEST_GROWTH)
        boxes = now + (first.boxes_xyxy - before) * growth[:, None]
        usable = (shared.sum(axis=1) >= _FEWEST_JOINTS) & (sizes_before > 1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        self._last_boxes = np.where(usable[:, None], boxes, self._last_boxes).astype(np.float32)
        return Detections(self._last_boxes, first.box_scores)

    def is_lost(self, poses: Poses, size: tuple[int, int]) -> bool:
        """Whether somebody is no longer followed: the joints are much less sure than they were, the person has left
        the image, or two people have become one.

        Args:
            poses: found with the boxes of :meth:`next`.
            size: (height, width) of the image.
        """
        if len(poses) == 0:
            return False
        boxes = poses.boxes_xyxy
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        outside = (middle < 0) | (middle > np.array([size[1], size[0]]))
        weak = (_strength(poses) < _LOST_BELOW * self._strength) & (self._strength > _FOLLOWED_ABOVE)
        return bool((weak | outside.any(axis=1)).any() or (_overlapping(boxes) & self._apart).any())


def _sure(poses: Poses) -> npt.NDArray[np.bool_]:
    heights = poses.keypoint_scores - _NO_JOINT
    sure: npt.NDArray[np.bool_] = heights > np.maximum(_SURE * heights.max(axis=1, keepdims=True), 0.05)
    return sure


def _strength(poses: Poses) -> FloatArray:
    """Mean height of the surer half of each person's joints."""
    heights = np.sort(poses.keypoint_scores - _NO_JOINT, axis=1)[:, -8:]
    strength: FloatArray = np.clip(heights, 0, None).mean(axis=1).astype(np.float32)
    return strength


def _extent(points_xy: FloatArray, chosen: npt.NDArray[np.bool_]) -> FloatArray:
    """Box around the chosen points of each row, (N, 4); empty at 0 where none is chosen."""
    low = np.where(chosen[..., None], points_xy, np.inf).min(axis=1)
    high = np.where(chosen[..., None], points_xy, -np.inf).max(axis=1)
    boxes = np.concatenate([low, high], axis=1)
    return np.where(np.isfinite(boxes), boxes, 0).astype(np.float32)


def _longer_side(boxes: FloatArray) -> FloatArray:
    sides: FloatArray = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    return sides


def _overlapping(boxes: FloatArray) -> npt.NDArray[np.bool_]:
    """(N, N): pairs of different people whose boxes are nearly the same."""
    pairs: npt.NDArray[np.bool_] = box_iou(boxes, boxes) > _MERGED_ABOVE
    np.fill_diagonal(pairs, False)
    return pairs
