"""Where the label of each person is drawn: at their own head, and not over the heads and labels of others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cpnpose.media.blur import head_ellipses
from cpnpose.pose.keypoints import SKELETON
from cpnpose.pose.types import FloatArray, IntArray, Poses

_GAP = 2
"""Pixels between a head and its label."""
_TIGHT = 0.85
"""Share of the generous ellipse of a head that is kept free."""
_PREFERENCE = np.array([0.0, 0.4, 0.8, 1.0, 1.3, 2.0, 2.5])
"""Cost of each candidate by its place: above the head, above left and right, right, left, below the feet, chest. All
differ, so that a label does not change sides from frame to frame."""
_OTHER_HEAD, _OWN_HEAD, _LABEL = 50.0, 10.0, 100.0
"""Cost of covering a head or a label, times the covered share of the new label."""
_OTHER_POINT, _OWN_POINT = 1.0, 0.1
"""Cost of each point of a skeleton that is covered."""

_Array = npt.NDArray[np.float64]


def place_labels(sizes: IntArray, poses: Poses, seen: npt.NDArray[np.bool_], canvas: tuple[int, int]) -> IntArray:
    """Upper left corners (N, 2) int64 of the labels of ``poses``, in pixels of the image.

    Greedy: in the order of their ids, people get the cheapest of seven places around them, all inside the picture.

    sizes: (N, 2) width and height of the labels. seen: (N, 17), the keypoints that are drawn. canvas: (H, W). Boxes
    must be finite.
    """
    centers, axes = head_ellipses(poses)
    heads = np.concatenate([centers - _TIGHT * axes, centers + _TIGHT * axes], axis=1).astype(np.float64)
    labels = _candidates(sizes.astype(np.float64), heads, poses.boxes_xyxy.astype(np.float64), canvas)
    costs = _standing_costs(labels, heads, _skeleton_points(poses.keypoints_xy, seen))
    chosen = np.full((len(poses), 4), -1.0)  # an empty rectangle outside of the picture
    order = range(len(poses)) if poses.track_ids is None else np.argsort(poses.track_ids, kind="stable").tolist()
    for person in order:
        taken = _covered(labels[person], chosen).sum(axis=1)
        chosen[person] = labels[person, int(np.argmin(costs[person] + _LABEL * taken))]
    return chosen[:, :2].astype(np.int64)


def _candidates(sizes: _Array, heads: _Array, boxes: _Array, canvas: tuple[int, int]) -> _Array:
    """(N, 7, 4): whole-numbered rectangles xyxy of the size of each label."""
    width, height = sizes.T
    left, top, right, bottom = heads.T
    above, middle, side = top - height - _GAP, (top + bottom - height) / 2, (left + right - width) / 2
    box_side, box_middle = (boxes[:, 0] + boxes[:, 2] - width) / 2, (boxes[:, 1] + boxes[:, 3] - height) / 2
    corners = [
        (side, above),
        (left - width, above),
        (right, above),
        (right + _GAP, middle),
        (left - width - _GAP, middle),
        (box_side, boxes[:, 3] + _GAP),
        (box_side, box_middle),
    ]
    upper_left = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    most = np.maximum(np.array([canvas[1], canvas[0]]) - sizes, 0)[:, None]
    upper_left = np.rint(np.clip(upper_left, 0, most))
    return np.concatenate([upper_left, upper_left + sizes[:, None]], axis=2)


def _skeleton_points(keypoints_xy: FloatArray, seen: npt.NDArray[np.bool_]) -> _Array:
    """(N, 36, 2): keypoints and the middles of bones; NaN where they are not drawn."""
    points = np.where(seen[..., None], keypoints_xy, np.nan).astype(np.float64)
    return np.concatenate([points, points[:, np.array(SKELETON)].mean(axis=2)], axis=1)


def _standing_costs(labels: _Array, heads: _Array, points: _Array) -> _Array:
    """(N, 7): costs that do not depend on where the other labels are."""
    count = len(labels)
    own = np.eye(count, dtype=bool)[:, None]
    head_costs = (_covered(labels, heads) * np.where(own, _OWN_HEAD, _OTHER_HEAD)).sum(axis=2)
    x, y = points.reshape(-1, 2).T
    left, top, right, bottom = np.moveaxis(labels[..., None], -2, 0)
    hits = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    inside = hits.reshape(*hits.shape[:2], count, points.shape[1]).sum(axis=3)
    return np.asarray(_PREFERENCE + head_costs + (inside * np.where(own, _OWN_POINT, _OTHER_POINT)).sum(axis=2))


def _covered(labels: _Array, others: _Array) -> _Array:
    """(..., M): the share of each label (..., 4) that lies on each of ``others`` (M, 4)."""
    left, top, right, bottom = np.moveaxis(labels[..., None], -2, 0)
    width = np.minimum(right, others[:, 2]) - np.maximum(left, others[:, 0])
    height = np.minimum(bottom, others[:, 3]) - np.maximum(top, others[:, 1])
    return np.asarray(np.maximum(width, 0) * np.maximum(height, 0) / np.maximum((right - left) * (bottom - top), 1))
