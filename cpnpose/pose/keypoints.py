"""The 17 keypoints of COCO: names, mirror pairs, skeleton and OKS constants.

Source: Lin et al., "Microsoft COCO", and the sigmas of the COCO keypoint evaluation (cocodataset.org, keypoints-eval).
"""

from __future__ import annotations

import numpy as np

KEYPOINT_NAMES: tuple[str, ...] = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""Names in index order. "Left" is the person's own left."""

NUM_KEYPOINTS = len(KEYPOINT_NAMES)

FLIP_INDEX: tuple[int, ...] = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""``FLIP_INDEX[k]`` is the keypoint that k becomes when the image is mirrored."""

SKELETON: tuple[tuple[int, int], ...] = (
    (15, 13),
    (13, 11),
    (16, 14),
    (14, 12),
    (11, 12),
    (5, 11),
    (6, 12),
    (5, 6),
    (5, 7),
    (7, 9),
    (6, 8),
    (8, 10),
    (1, 2),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 6),
)
"""Pairs of keypoint indices (0-based) that are joined when a skeleton is drawn."""

HEAD: tuple[int, ...] = (0, 1, 2, 3, 4)
UPPER_BODY: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
LOWER_BODY: tuple[int, ...] = (11, 12, 13, 14, 15, 16)

OKS_SIGMAS = np.array(
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ],
    dtype=np.float32,
)
"""Per-keypoint sigma of the object keypoint similarity; float32 (17,)."""
