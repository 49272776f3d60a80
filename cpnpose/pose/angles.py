"""Joint angles in the image plane.

A joint angle is the angle at the joint b between the segments to a and c, from 0 (folded) to 180 degrees (straight)::

    u = a - b,  v = c - b,  angle = atan2(|u_x v_y - u_y v_x|, u_x v_x + u_y v_y)

========  ========  ========  ========
angle     a         b         c
========  ========  ========  ========
elbow     shoulder  elbow     wrist
shoulder  hip       shoulder  elbow
hip       shoulder  hip       knee
knee      hip       knee      ankle
========  ========  ========  ========

The trunk's lean is the angle between the upward vertical of the image and the line from the middle of the hips to the
middle of the shoulders, ``atan2(d_x, -d_y)``: 0 upright, positive when leaning to the right of the image, from -180 to
180 degrees. These are angles of the projection: they equal the body's own only where the limb lies in the image plane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.pose.keypoints import KEYPOINT_NAMES
from cpnpose.pose.types import FLAG_FILLED, FloatArray

DEFAULT_MIN_SCORE = 0.7
"""A keypoint's score is its heatmap value (0 to 1) plus 0.5, so this asks for a fifth of the full height."""

_CHAINS = {"elbow": "shoulder elbow wrist", "shoulder": "hip shoulder elbow", "hip": "shoulder hip knee"} | {
    "knee": "hip knee ankle"
}
ANGLE_NAMES: tuple[str, ...] = (*(f"{side}_{joint}" for joint in _CHAINS for side in ("left", "right")), "trunk")
"""Names of the columns of :func:`joint_angles`."""
_TRIPLES = np.array(
    [
        [KEYPOINT_NAMES.index(f"{side}_{end}") for end in _CHAINS[joint].split()]
        for joint in _CHAINS
        for side in ("left", "right")
    ]
)
_SHOULDERS = [KEYPOINT_NAMES.index("left_shoulder"), KEYPOINT_NAMES.index("right_shoulder")]
_HIPS = [KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")]


def joint_angles(
    keypoints_xy: npt.NDArray[np.floating[Any]],
    keypoint_scores: npt.NDArray[np.floating[Any]],
    min_score: float = DEFAULT_MIN_SCORE,
    flags: npt.NDArray[np.uint8] | None = None,
) -> FloatArray:
    """Angles of every person.

    Args:
        keypoints_xy: (N, 17, 2) pixels, y down.
        keypoint_scores: (N, 17).
        min_score: an angle is NaN where one of its keypoints scores less.
        flags: (N, 17) as in :attr:`cpnpose.pose.types.Poses.flags`; filled keypoints count whatever they score.

    Returns:
        (N, 9) float32 degrees, columns as in :data:`ANGLE_NAMES`. NaN also where a segment has no length.
    """
    points = np.asarray(keypoints_xy, np.float64).reshape(-1, len(KEYPOINT_NAMES), 2)
    sure = np.asarray(keypoint_scores).reshape(-1, len(KEYPOINT_NAMES)) >= min_score
    if flags is not None:
        sure = sure | ((np.asarray(flags).reshape(sure.shape) & FLAG_FILLED) > 0)
    a, b, c = (points[:, _TRIPLES[:, column]] for column in range(3))
    u, v = a - b, c - b
    cross = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    inner = (u * v).sum(axis=-1)
    joints = np.degrees(np.arctan2(np.abs(cross), inner))
    known = sure[:, _TRIPLES].all(axis=-1) & u.any(axis=-1) & v.any(axis=-1)
    line = points[:, _SHOULDERS].mean(axis=1) - points[:, _HIPS].mean(axis=1)
    lean = np.degrees(np.arctan2(line[:, 0], -line[:, 1]))
    lean_known = sure[:, _SHOULDERS + _HIPS].all(axis=1) & line.any(axis=-1)
    angles = np.column_stack([joints, lean])
    angles[~np.column_stack([known, lean_known])] = np.nan
    return angles.astype(np.float32)
