"""Boxes, crops and the affine maps between an image and its crops. Corner-origin pixels everywhere (see ``types``)."""

from __future__ import annotations

import numpy as np

from cpnpose.pose.types import FloatArray


def crop_boxes(boxes_xyxy: FloatArray, input_size: tuple[int, int], padding: tuple[float, float]) -> FloatArray:
    """The region of the image that each person's crop shows.

    The box is widened by ``padding`` (share of its width, share of its height) on each side; then the shorter side
    grows about the centre to the shape of the input. Nothing is clipped to the image.

    Args:
        boxes_xyxy: (N, 4) image pixels.
        input_size: (height, width) of the crops.

    Returns:
        (N, 4) float32 xyxy, image pixels, height : width as in ``input_size``.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0) * (1 + 2 * np.asarray(padding))
    aspect = input_size[1] / input_size[0]
    width = np.maximum(sides[:, 0], sides[:, 1] * aspect)
    half = np.stack([width, width / aspect], axis=1) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def crop_affines(regions_xyxy: FloatArray, input_size: tuple[int, int]) -> FloatArray:
    """Maps that take image points to crop points: ``crop = A @ [x, y, 1]``.

    Args:
        regions_xyxy: (N, 4) what the crops show, image pixels.
        input_size: (height, width) of the crops.

    Returns:
        (N, 2, 3) float32.
    """
    regions = np.asarray(regions_xyxy, np.float64).reshape(-1, 4)
    scale = np.array([input_size[1], input_size[0]]) / (regions[:, 2:] - regions[:, :2])  # (N, 2)
    affines = np.zeros((len(regions), 2, 3))
    affines[:, 0, 0], affines[:, 1, 1] = scale[:, 0], scale[:, 1]
    affines[:, :, 2] = -regions[:, :2] * scale
    return affines.astype(np.float32)


def invert_affines(affines: FloatArray) -> FloatArray:
    """The inverse maps. (N, 2, 3) to (N, 2, 3) float32."""
    matrices = np.asarray(affines, np.float64)
    inverse = np.linalg.inv(matrices[:, :, :2])
    shift = -(inverse @ matrices[:, :, 2:])
    return np.concatenate([inverse, shift], axis=2).astype(np.float32)


def transform_points(affines: FloatArray, points_xy: FloatArray) -> FloatArray:
    """Apply map n to the points of row n. (N, 2, 3) and (N, K, 2) to (N, K, 2) float32."""
    matrices = np.asarray(affines, np.float64)
    moved = np.asarray(points_xy, np.float64) @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]
    return moved.astype(np.float32)


def box_iou(first_xyxy: FloatArray, second_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of every pair. (N, 4) and (M, 4) to (N, M) float32; empty boxes have 0."""
    a, b = np.asarray(first_xyxy, np.float64)[:, None], np.asarray(second_xyxy, np.float64)[None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).clip(0).prod(-1) + (b[..., 2:] - b[..., :2]).clip(0).prod(-1)
    iou: FloatArray = (overlap / np.maximum(areas - overlap, 1e-9)).astype(np.float32)
    return iou
