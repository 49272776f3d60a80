"""Who is who: the likeness of known people and found poses, and the best assignment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cpnpose.pose.oks import oks_of_pairs

Array = npt.NDArray[np.float64]

MATCH_SIGMAS = np.full(17, 0.1)
"""Spread of a keypoint between two frames for matching: limbs move, so wider than the spread of labelling."""
BODY_SHARE = 0.5
"""Part of a person's box that the body covers, as COCO's areas have it."""


def iou(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> Array:
    """Intersection over union of boxes: (N, 4) and (M, 4) xyxy to (N, M) in [0, 1]."""
    return iou_and_share(boxes_a, boxes_b)[0]


def covered(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> Array:
    """The share of each box a that lies in each box b: (N, 4) and (M, 4) xyxy to (N, M) in [0, 1]."""
    overlap, area_a, _ = _overlap(boxes_a, boxes_b)
    share: Array = overlap / np.maximum(area_a, 1e-9)
    return share


def iou_and_share(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> tuple[Array, Array]:
    """:func:`iou`, and the share of each box b that lies in each box a: (N, 4) and (M, 4) xyxy to (N, M) twice."""
    overlap, area_a, area_b = _overlap(boxes_a, boxes_b)
    return overlap / np.maximum(area_a + area_b - overlap, 1e-9), overlap / np.maximum(area_b, 1e-9)


def iou_of_smaller(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> Array:
    """Intersection over the smaller of two areas: (N, 4) and (M, 4) xyxy to (N, M) in [0, 1]; 1 where one box lies in
    the other."""
    overlap, area_a, area_b = _overlap(boxes_a, boxes_b)
    share: Array = overlap / np.maximum(np.minimum(area_a, area_b), 1e-9)
    return share


def _overlap(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Areas: of the intersections (N, M), of the boxes a (N, 1), of the boxes b (1, M)."""
    a = np.asarray(boxes_a, np.float64).reshape(-1, 1, 4)
    b = np.asarray(boxes_b, np.float64).reshape(1, -1, 4)
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    sides_a, sides_b = np.maximum(a[..., 2:] - a[..., :2], 0), np.maximum(b[..., 2:] - b[..., :2], 0)
    return shared[..., 0] * shared[..., 1], sides_a[..., 0] * sides_a[..., 1], sides_b[..., 0] * sides_b[..., 1]


def pose_likeness(
    found_xy: npt.NDArray[np.floating],
    known_xy: npt.NDArray[np.floating],
    counted: npt.NDArray[np.bool_],
    area: Array,
    wanted: npt.NDArray[np.bool_],
) -> Array:
    """OKS with the spread of motion: found (N, 17, 2), known (T, 17, 2), counted (T, 17), box area (T,) -> (T, N).
    A found keypoint that is no number is like none. Only the pairs ``wanted`` (T, N) are compared, the others are 0:
    of a crowd's pairs, few can be one person."""
    rows, columns = np.nonzero(wanted)
    likeness = np.zeros(wanted.shape)
    size = BODY_SHARE * area[rows]
    likeness[rows, columns] = oks_of_pairs(found_xy[columns], known_xy[rows], counted[rows], size, MATCH_SIGMAS)
    return np.where(np.isnan(likeness), 0.0, likeness)


def within_reach(
    found_xy: npt.NDArray[np.floating], known_xy: npt.NDArray[np.floating], area: Array, least: float
) -> npt.NDArray[np.bool_]:
    """Which pairs, (T, N), may have a :func:`pose_likeness` of ``least``, as cheap to tell as the overlap of boxes: one
    keypoint at least must be so much alike. Arguments as there."""
    reach = 2.0 * MATCH_SIGMAS.max() * np.sqrt(-2.0 * np.log(least) * BODY_SHARE * area)
    low, high = np.fmin.reduce(known_xy, axis=1)[:, None], np.fmax.reduce(known_xy, axis=1)[:, None]
    gap = np.maximum(low - np.fmax.reduce(found_xy, axis=1), np.fmin.reduce(found_xy, axis=1) - high)
    return np.asarray((gap <= reach[:, None, None]).all(axis=-1), np.bool_)


def assign(likeness: Array, allowed: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pairs with the greatest sum of likeness (Hungarian method); pairs that are not allowed are never made.

    Args:
        likeness: (T, N), greater is more alike, >= 0.
        allowed: (T, N) bool.

    Returns:
        rows (M,) and columns (M,) int64 of the pairs.
    """
    if not allowed.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    from scipy.optimize import linear_sum_assignment  # here, as it takes a while and images do without it

    # A forbidden pair is worth nothing, so it is chosen only where nothing better is left, and then dropped.
    value = np.where(allowed, likeness + 1e-6, 0.0)
    rows, columns = linear_sum_assignment(value, maximize=True)
    made = allowed[rows, columns]
    return rows[made].astype(np.int64), columns[made].astype(np.int64)
