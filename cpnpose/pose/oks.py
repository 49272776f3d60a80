"""Object keypoint similarity (OKS): how well one pose matches another, from 0 to 1.

Source: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017), equation 1,
with the constants of the COCO keypoint evaluation: per keypoint ``exp(-d^2 / (2 s^2 k^2))`` with ``k = 2 sigma`` and
``s^2`` the area of the person, averaged over the labelled keypoints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.pose.keypoints import OKS_SIGMAS


def oks(
    predicted_xy: npt.NDArray[np.floating[Any]],
    true_xy: npt.NDArray[np.floating[Any]],
    visible: npt.NDArray[np.bool_],
    area: npt.NDArray[np.floating[Any]],
    sigmas: npt.NDArray[np.floating[Any]] = OKS_SIGMAS,
) -> npt.NDArray[np.float64]:
    """Similarity of every predicted pose with every true pose.

    Args:
        predicted_xy: (N, K, 2) points in pixels.
        true_xy: (M, K, 2) points in pixels, same frame.
        visible: (M, K) bool, True where the true keypoint is labelled; the others do not count.
        area: (M,) area of the true person in square pixels (COCO's ``area`` field: of the mask, not of the box).
        sigmas: (K,) spread of each keypoint; COCO's for K = 17.

    Returns:
        (N, M) float64 in [0, 1]. A column whose person has no labelled keypoint is 0. (COCO compares such persons by
        their distance from the box, and only to ignore predictions there; that is for the evaluation to do.)
    """
    keypoints = len(sigmas)
    predicted = np.asarray(predicted_xy, np.float64).reshape(-1, 1, keypoints, 2)
    true = np.asarray(true_xy, np.float64).reshape(1, -1, keypoints, 2)
    counted = np.asarray(visible, np.bool_).reshape(-1, keypoints)
    size = np.asarray(area, np.float64).reshape(-1) + np.spacing(1.0)
    variance = (2.0 * np.asarray(sigmas, np.float64)) ** 2
    difference = np.where(counted[None, :, :, None], predicted - true, 0.0)
    exponent = np.square(difference).sum(axis=-1) / (2.0 * size[None, :, None] * variance)
    similarity = np.exp(-exponent) * counted[None]
    total: npt.NDArray[np.float64] = similarity.sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
    return total
