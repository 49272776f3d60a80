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

_FAR = 700.0
"""Greatest exponent that counts: somewhat beyond it exp is no normal number any more and takes hundreds of times as
long."""


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
    return oks_of_pairs(
        np.asarray(predicted_xy).reshape(-1, 1, len(sigmas), 2),
        np.asarray(true_xy).reshape(-1, len(sigmas), 2),
        np.asarray(visible).reshape(-1, len(sigmas)),
        np.asarray(area).reshape(-1),
        sigmas,
    )


def oks_of_pairs(
    predicted_xy: npt.NDArray[np.floating[Any]],
    true_xy: npt.NDArray[np.floating[Any]],
    visible: npt.NDArray[np.bool_],
    area: npt.NDArray[np.floating[Any]],
    sigmas: npt.NDArray[np.floating[Any]] = OKS_SIGMAS,
) -> npt.NDArray[np.float64]:
    """As :func:`oks`, of each predicted pose with the true pose in the same place: (..., K, 2) twice, (..., K) and
    (...) to (...) float64, where leading axes broadcast."""
    difference = np.asarray(predicted_xy, np.float64) - np.asarray(true_xy, np.float64)
    counted = np.asarray(visible, np.bool_)
    size = np.asarray(area, np.float64)[..., None] + np.spacing(1.0)
    variance = (2.0 * np.asarray(sigmas, np.float64)) ** 2
    squared = np.square(difference[..., 0]) + np.square(difference[..., 1])
    exponent = squared / (2.0 * size * variance)
    far = exponent > _FAR
    similarity = np.where(counted & ~far, np.exp(-np.where(far, _FAR, exponent)), 0.0)
    total: npt.NDArray[np.float64] = similarity.sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
    return total
