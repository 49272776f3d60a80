"""People cut out of images, ready for the network."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.pose.geometry import crop_affines, crop_boxes
from cpnpose.pose.types import Detections, FloatArray, ImageArray, IntArray, PersonCrops, Preprocessing


def warp(image: ImageArray, affine: FloatArray, size: tuple[int, int], fill: tuple[float, float, float]) -> ImageArray:
    """Resample ``image`` through ``affine`` (2, 3), image to crop, both corner-origin.

    Bilinear; where the crop is less than half as fine as the image, the image is first shrunk by area, so that fine
    patterns do not flicker. Outside the image stands ``fill``.

    Returns:
        (height, width, 3) uint8.
    """
    matrix = np.asarray(affine, np.float64).copy()
    factor = shrink_factor(affine)
    if factor > 1:
        image, matrix = _shrink(image, matrix, size, factor)
    # From corner-origin to OpenCV's frame, in which pixel centres are whole numbers.
    matrix[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    warped: ImageArray = cv2.warpAffine(  # type: ignore[assignment]
        image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )
    return warped


def shrink_factor(affine: FloatArray) -> int:
    """By which whole factor an image is shrunk before it is resampled through ``affine`` (2, 3): 1 where the crop is at
    least half as fine as the image."""
    scale = float(np.sqrt(abs(np.linalg.det(np.asarray(affine[:, :2], np.float64)))))
    return int(1 / scale) if scale < 0.5 else 1


def _shrink(
    image: ImageArray, matrix: npt.NDArray[np.float64], size: tuple[int, int], factor: int
) -> tuple[ImageArray, npt.NDArray[np.float64]]:
    """Cut out what the crop shows and shrink it by a whole factor; returns it with the map that fits it."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    corners = np.array([[0, 0, 1], [size[1], 0, 1], [0, size[0], 1], [size[1], size[0], 1]]) @ inverse.T
    limit = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(corners.min(0) / factor) * factor - factor, 0, limit).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + factor, 0, limit).astype(int)
    if (high - low < factor).any():
        return image, matrix
    region = image[low[1] : high[1], low[0] : high[0]]
    height, width = region.shape[0] // factor, region.shape[1] // factor
    region = region[: height * factor, : width * factor]
    small: ImageArray = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ low
    moved[:, :2] *= factor
    return small, moved


def crop_persons(
    images: Sequence[ImageArray],
    detections: Sequence[Detections],
    input_size: tuple[int, int],
    preprocessing: Preprocessing,
) -> PersonCrops:
    """Cut every detected person out of every image.

    Args:
        images: (H, W, 3) uint8 RGB, any sizes.
        detections: one for each image.
        input_size: (height, width) of the crops.

    Returns:
        Crops in the order of the images and, within an image, of its detections. No people give N = 0.
    """
    boxes, scores, frames, affines = people_of(detections, input_size, preprocessing)
    pixels = np.empty((len(boxes), *input_size, 3), np.uint8)
    for row, (frame, affine) in enumerate(zip(frames.tolist(), affines, strict=True)):
        pixels[row] = warp(images[frame], affine, input_size, preprocessing.mean)
    return PersonCrops(pixels, affines, frames, boxes, scores)


def people_of(
    detections: Sequence[Detections], input_size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[FloatArray, FloatArray, IntArray, FloatArray]:
    """All people of several images in one table: boxes (N, 4), scores (N,), the images' numbers (N,), and the maps
    (N, 2, 3) from their image to their crop."""
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(found.boxes_xyxy for found in detections)])
    scores = np.concatenate([np.zeros((0,), np.float32), *(found.scores for found in detections)])
    frames = np.repeat(np.arange(len(detections), dtype=np.int64), [len(found) for found in detections])
    affines = crop_affines(crop_boxes(boxes, input_size, preprocessing.box_padding), input_size)
    return boxes.astype(np.float32), scores.astype(np.float32), frames, affines
