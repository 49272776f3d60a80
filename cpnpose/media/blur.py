"""Blurring what should not be seen: the background behind people, or their heads."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.pose.keypoints import HEAD, SKELETON
from cpnpose.pose.types import FloatArray, ImageArray, Poses

_UNSURE = 0.6
"""Keypoint scores below this are close to the background's 0.5: the position says little."""
_MASK_SCALE = 4
"""The outline of people is drawn and softened at a quarter of the image's size."""
_TRUNK = [5, 6, 12, 11]
"""Shoulders and hips, in the order around the trunk."""
_CELLS = 5
"""A blurred head keeps about this many patches of colour across, too few to know a face by."""


def _finite(values: FloatArray) -> FloatArray:
    """The values with 0 for what is no number or infinite."""
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def blur_background(image: ImageArray, poses: Poses) -> ImageArray:
    """A copy of ``image`` (H, W, 3) uint8 that is sharp on the people only."""
    height, width = image.shape[:2]
    small_size = (max(1, width // 8), max(1, height // 8))
    small = cv2.GaussianBlur(cv2.resize(image, small_size, interpolation=cv2.INTER_AREA), (0, 0), 2.5)
    blurred = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    if len(poses) == 0:
        return blurred
    mask = people_mask(poses, (height, width))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return blurred
    area = (
        slice(rows[0] * _MASK_SCALE, min(height, (rows[-1] + 1) * _MASK_SCALE)),
        slice(columns[0] * _MASK_SCALE, min(width, (columns[-1] + 1) * _MASK_SCALE)),
    )
    part = np.ascontiguousarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    shape = (area[1].stop - area[1].start, area[0].stop - area[0].start)
    weight = cv2.resize(part, shape, interpolation=cv2.INTER_LINEAR)
    sharp = weight.astype(np.float32) * np.float32(1 / 255)
    blurred[area] = cv2.blendLinear(image[area], blurred[area], sharp, 1 - sharp)
    return blurred


def people_mask(poses: Poses, size: tuple[int, int]) -> ImageArray:
    """(ceil(H/4), ceil(W/4)) uint8: 255 on people, soft at the rim. Limbs are drawn as thick lines, heads as ellipses;
    of people with fewer than four sure keypoints the whole box is taken."""
    mask = np.zeros((-(-size[0] // _MASK_SCALE), -(-size[1] // _MASK_SCALE)), np.uint8)
    sides = poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]
    reach = _finite(sides.max(axis=1)) / _MASK_SCALE
    limit = 4 * float(max(mask.shape))
    points = np.clip(_finite(poses.keypoints_xy) / _MASK_SCALE - 0.5, -limit, limit)
    fixed = np.rint(points * 16).astype(np.int32)
    sure = (poses.keypoint_scores >= _UNSURE).sum(axis=1)
    # An unsure joint still belongs to the outline, unless it lies far from the person.
    margin = 0.2 * sides[:, None]
    low, high = poses.boxes_xyxy[:, None, :2] - margin, poses.boxes_xyxy[:, None, 2:] + margin
    near = np.asarray(((poses.keypoints_xy >= low) & (poses.keypoints_xy <= high)).all(axis=2))
    bones = np.array(SKELETON)
    drawn = near[:, bones[:, 0]] & near[:, bones[:, 1]]
    for person in range(len(poses)):
        if sure[person] < 4:
            x1, y1, x2, y2 = np.clip(_finite(poses.boxes_xyxy[person]) / _MASK_SCALE, -limit, limit).astype(int)
            cv2.rectangle(mask, (int(x1), int(y1)), (int(x2), int(y2)), 255, -1)
            continue
        limb = max(1, min(255, round(float(reach[person]) * 0.13)))
        cv2.polylines(mask, list(fixed[person][bones[drawn[person]]]), False, 255, limb, cv2.LINE_8, 4)
        if near[person, _TRUNK].all():
            cv2.fillConvexPoly(mask, cv2.convexHull(fixed[person][_TRUNK]), 255, cv2.LINE_8, 4)
    centers, axes = head_ellipses(poses)
    for center, axis in zip(centers / _MASK_SCALE, axes / _MASK_SCALE, strict=True):
        if np.isfinite(center).all() and np.abs(center).max() < limit:
            cv2.ellipse(mask, (center.tolist(), (2 * axis).tolist(), 0.0), 255, -1)
    softness = max(1.0, float(np.median(reach)) * 0.02)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), softness), dtype=np.uint8)


def head_ellipses(poses: Poses) -> tuple[FloatArray, FloatArray]:
    """Where heads are: centres (N, 2) and half axes (N, 2) in image pixels, generous rather than tight.

    From the keypoints of the head where one is sure; from the shoulders where only they are; from the top of the box
    where neither is. The size is the largest that head keypoints, shoulders or box height suggest.
    """
    xy = _finite(poses.keypoints_xy)
    finite = np.asarray(np.isfinite(poses.keypoints_xy).all(axis=2))
    sure = np.asarray((poses.keypoint_scores >= _UNSURE) & finite)
    boxes = _finite(poses.boxes_xyxy)
    box_width, box_height = (boxes[:, 2:] - boxes[:, :2]).T

    head, head_sure = xy[:, HEAD], sure[:, HEAD]
    weight = head_sure[..., None].astype(np.float32)
    count = np.maximum(weight.sum(axis=1), 1)
    head_center = (head * weight).sum(axis=1) / count
    spread = (np.linalg.norm(head - head_center[:, None], axis=2) * head_sure).max(axis=1, initial=0)

    left, right = xy[:, 5], xy[:, 6]
    both_shoulders = np.asarray(sure[:, 5] & sure[:, 6])
    shoulders = np.where(both_shoulders, np.linalg.norm(left - right, axis=1), 0)
    middle = (left + right) / 2
    hips = (xy[:, 11] + xy[:, 12]) / 2
    trunk = np.where((sure[:, 11] & sure[:, 12])[:, None], middle - hips, np.array([0.0, -1.0], np.float32))
    trunk = trunk / np.maximum(np.linalg.norm(trunk, axis=1, keepdims=True), 1e-6)

    has_head = np.asarray(head_sure.any(axis=1))
    radius = np.maximum.reduce([1.5 * spread, 0.5 * shoulders, 0.06 * box_height])
    above_shoulders = middle + trunk * (0.75 * np.maximum(shoulders, 0.12 * box_height))[:, None]
    top_of_box = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 1] + 0.09 * box_height], axis=1)
    centers = np.where(has_head[:, None], head_center, np.where(both_shoulders[:, None], above_shoulders, top_of_box))
    # A lone ear or eye says less about the middle of the head than several keypoints do.
    radius = radius * np.where(has_head & (head_sure.sum(axis=1) < 3), 1.3, 1.0)
    axes = np.stack([radius, 1.25 * radius], axis=1)
    from_box = np.stack([0.4 * box_width, 0.13 * box_height], axis=1)
    axes = np.where((has_head | both_shoulders)[:, None], axes, np.maximum(from_box, axes))
    return centers.astype(np.float32), np.maximum(axes, 2).astype(np.float32)


def blur_heads(image: ImageArray, poses: Poses) -> None:
    """Make the heads of all people in ``image`` (H, W, 3) uint8 unrecognisable, in place."""
    height, width = image.shape[:2]
    centers, axes = head_ellipses(poses)
    corners = np.concatenate([np.floor(centers - axes), np.ceil(centers + axes)], axis=1)
    corners = np.clip(corners, 0, [width, height, width, height]).astype(int)
    for (x1, y1, x2, y2), center, axis in zip(corners.tolist(), centers, axes, strict=True):
        if x2 > x1 and y2 > y1:
            _blur_ellipse(image[y1:y2, x1:x2], center - (x1, y1), axis)


def _blur_ellipse(region: ImageArray, center: npt.NDArray[np.float32], axes: npt.NDArray[np.float32]) -> None:
    height, width = region.shape[:2]
    cells = np.maximum(1, np.rint(np.array([width, height]) / (2 * axes) * _CELLS)).astype(int)
    coarse = cv2.resize(region, (int(cells[0]), int(cells[1])), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    y, x = np.ogrid[0.5:height, 0.5:width]
    inside = ((x - center[0]) / axes[0]) ** 2 + ((y - center[1]) / axes[1]) ** 2 <= 1
    np.copyto(region, smooth, where=inside[..., None])
