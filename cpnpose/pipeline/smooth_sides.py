"""Left and right that have changed places from one frame to the next: of a whole person, of the legs, of one joint."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cpnpose.pose.keypoints import FLIP_INDEX

Array = npt.NDArray[np.float64]

EXCHANGED_FROM = 0.05
"""Shortest jump to the other side, in sizes."""
EXCHANGED_ALONG = 1.2
"""With shoulders or ankles, those pairs of joints change places too whose way is then at most so many times as far."""
FLIP = np.array(FLIP_INDEX)
SHOULDER = 5
"""Left shoulder. Only where both shoulders have changed places has the whole person: legs and arms cross in walking."""
ANKLES = [15, 16]
"""Where both have changed places from one frame to the next, faster than feet move, the legs have."""
LEGS_FROM, LEGS_SPEED = 0.05, 3.5
"""Shortest such jump: so many sizes, and so many more per second. In a sprint a foot makes 3.2 beside the body."""
_LEGS = np.arange(len(FLIP)) >= 11


def exchanged_sides(
    measured: Array, before: Array, last: Array, scale: Array, step: Array
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whose shoulders have both gone to where the other one was, and whose ankles have, but not the shoulders, (N, 2);
    and which joints and their left or right counterparts change places with them, (N, 17, 2).

    Args:
        measured, before: as in :func:`beside_counterpart`.
        scale: (N, 1, 1) sizes of the people in pixels.
        last: (N, 17, 2) places in the frame before, not smoothed: behind them there is no lag that feet could overtake.
        step: (N, 1, 1) seconds since then.
    """
    ways = (length(measured - before), length(measured - before[:, FLIP]))
    stay, change = (np.hypot(way, way[:, FLIP]) / math.sqrt(2.0) for way in ways)
    shoulders = (stay[:, SHOULDER] > EXCHANGED_FROM * scale[:, 0, 0]) & (change[:, SHOULDER] < 0.8 * stay[:, SHOULDER])
    ankles = beside_counterpart(measured, last, (LEGS_FROM + LEGS_SPEED * step) * scale)[:, ANKLES].all(axis=1)
    along = change < EXCHANGED_ALONG * stay
    return np.stack([shoulders, ankles & ~shoulders], axis=-1), np.stack([along, along & _LEGS], axis=-1)


def beside_counterpart(measured: Array, before: Array, least: Array) -> npt.NDArray[np.bool_]:
    """Which joints have jumped to where their left or right counterparts were, (N, 17).

    Args:
        measured, before: (N, 17, 2) places now and, smoothed, in the frame before; pixels.
        least: (N, 1, 1) shortest such jump in pixels.
    """
    jump, beside = length(measured - before), length(measured - before[:, FLIP])
    return (jump > least[..., 0]) & (beside < 0.8 * jump)


def length(vectors: Array) -> Array:
    """(..., 2) to their lengths (...)."""
    lengths: Array = np.sqrt(np.square(vectors[..., 0]) + np.square(vectors[..., 1]))
    return lengths
