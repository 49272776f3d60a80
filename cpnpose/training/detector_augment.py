"""Training canvases for the detector: one image or a mosaic of four, scaled, cropped, mirrored and recoloured."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.pose.types import FloatArray, ImageArray
from cpnpose.training.detector_data import BoxDataset

_GRAY = 127
_VISIBLE = 0.3
"""A person of whom less than this share of the box is left in the canvas is ignored."""
_SMALLEST = 7.0
"""People smaller than this (square root of the box's area, pixels of the canvas) are ignored."""


@dataclass(frozen=True)
class Canvas:
    """One training image. Boxes are xyxy in pixels of the canvas, float32."""

    pixels: ImageArray
    """(H, W, 3) uint8 RGB."""
    boxes_xyxy: FloatArray
    ignore_xyxy: FloatArray
    """Crowds, and people too small or too much cut off."""
    doubtful_xyxy: FloatArray
    """Where people may have no box."""
    indices: tuple[int, ...]
    """The samples that it was made of."""


def compose(
    dataset: BoxDataset,
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    nominal_side: float,
    mosaic: float,
    turn: float = 0.0,
    turn_degrees: float = 0.0,
) -> Canvas:
    """Make a canvas.

    Args:
        dataset: where the images come from.
        rng: decides everything; the same state gives the same canvas.
        size: (height, width) of the canvas.
        nominal_side: square root of the number of pixels to which the detector brings a frame.
        mosaic: probability of four images instead of one.
        turn: probability that an image is turned about its middle ...
        turn_degrees: ... by up to this angle to either side.
    """
    height, width = size
    pixels = np.full((height, width, 3), _GRAY, np.uint8)
    if rng.random() < mosaic:
        x, y = int(width * rng.uniform(0.3, 0.7)), int(height * rng.uniform(0.3, 0.7))
        tiles = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        low, high = 0.45 * (height * width) ** 0.5 / nominal_side, 1.0
    else:
        tiles = [(0, 0, width, height)]
        low, high = 0.85 * (height * width) ** 0.5 / nominal_side, 1.3
    indices = dataset.draw(rng, len(tiles))
    parts = []
    for index, tile in zip(indices, tiles, strict=True):
        side = nominal_side * float(np.exp(rng.uniform(np.log(low), np.log(high))))
        degrees = float(rng.uniform(-turn_degrees, turn_degrees)) if rng.random() < turn else 0.0
        parts.append(_fill(dataset, index, rng, pixels, tile, side, degrees))
    if rng.random() < 0.1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.2))).astype(np.uint8)
    boxes, ignore, doubtful = (np.concatenate(rows).astype(np.float32) for rows in zip(*parts, strict=True))
    return Canvas(pixels, boxes, ignore, doubtful, tuple(indices))


def _fill(
    dataset: BoxDataset,
    index: int,
    rng: np.random.Generator,
    canvas: ImageArray,
    tile: tuple[int, int, int, int],
    side: float,
    degrees: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw a window of a sample, scaled so that the whole image would have ``side`` squared pixels and turned by
    ``degrees``, into the tile (x1, y1, x2, y2) of the canvas. Returns its boxes, ignored and doubtful regions."""
    sample, source = dataset.samples[index], dataset.pixels(index)
    source_height, source_width = source.shape[:2]
    x1, y1, x2, y2 = tile
    scale = side / (source_height * source_width) ** 0.5
    # Images of incomplete sets were squeezed to squares from mostly wide pictures: they are widened more often.
    stretch = float(np.exp(rng.uniform(-0.06, 0.06) if sample.complete else rng.uniform(-0.05, 0.18)))
    scales = np.array([scale * stretch, scale / stretch])
    wanted = np.array([x2 - x1, y2 - y1]) / scales  # window in pixels of the source
    whole = np.array([source_width, source_height], np.float64)
    window = np.minimum(wanted, whole)
    room = whole - window
    if len(sample.boxes_xyxy) and rng.random() < 0.7:
        box = sample.boxes_xyxy[rng.integers(len(sample.boxes_xyxy))]
        centre = (box[:2] + box[2:]) / 2
        corner = np.clip(centre - window * rng.uniform(0.2, 0.8, 2), 0, room)
    else:
        corner = rng.uniform(0, 1, 2) * room
    low = np.floor(corner).astype(int)
    high = np.minimum(np.ceil(corner + window), whole).astype(int)
    filled = np.maximum(np.minimum(np.round((high - low) * scales), [x2 - x1, y2 - y1]).astype(int), 1)
    scales = filled / (high - low)
    slack = np.array([x2 - x1, y2 - y1]) - filled
    start = np.array([x1, y1]) + np.floor(rng.uniform(0, 1, 2) * (slack + 1)).astype(int).clip(0, slack)
    way = cv2.INTER_AREA if scales.min() < 0.7 and rng.random() < 0.6 else cv2.INTER_LINEAR
    piece = cv2.resize(source[low[1] : high[1], low[0] : high[0]], (int(filled[0]), int(filled[1])), interpolation=way)
    mirrored = rng.random() < 0.5
    if mirrored:
        piece = piece[:, ::-1]
    end = start + filled
    piece = recolour(piece.astype(np.uint8, copy=False), rng)
    people = _to_canvas(sample.boxes_xyxy, low, scales, filled, mirrored)
    crowds = _to_canvas(sample.ignore_xyxy, low, scales, filled, mirrored)
    inside = np.array([0, 0, *filled], np.float32)
    in_window = _clip(people, inside)
    left = _area(in_window) / np.maximum(_area(people), 1e-6)
    people, crowds = in_window.astype(np.float64), _clip(crowds, inside).astype(np.float64)
    if degrees:
        piece, people, crowds = _turned(piece, people, crowds, degrees)
    canvas[start[1] : end[1], start[0] : end[0]] = piece
    region = np.concatenate([start, end]).astype(np.float32)
    clipped = _clip(people + np.tile(start, 2), region)
    visible = _area(clipped)
    kept = (visible * left >= _VISIBLE * _area(people)) & (visible >= _SMALLEST**2)
    unclear = ~kept & (visible > 0)
    crowded = _clip(crowds + np.tile(start, 2), region)
    ignore = np.concatenate([clipped[unclear], crowded[_area(crowded) > 0]])
    return clipped[kept], ignore, np.zeros((0, 4), np.float32) if sample.complete else region[None]


def recolour(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Change brightness, contrast, gamma and the balance of the colours of uint8 RGB (H, W, 3); gray at times."""
    if rng.random() < 0.05:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2).astype(np.uint8)
    if rng.random() < 0.2:
        return image
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    table = np.power(levels, rng.uniform(0.75, 1.35)) * gain + rng.uniform(-0.08, 0.08)
    curves = np.clip(table * 255, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    return cv2.LUT(np.ascontiguousarray(image), curves).astype(np.uint8, copy=False)


def _turned(
    image: ImageArray, people: npt.NDArray[np.float64], crowds: npt.NDArray[np.float64], degrees: float
) -> tuple[ImageArray, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """An image and its boxes turned about its middle, counter-clockwise as seen; gray where nothing is known.

    The box of a turned person is that of the ellipse inscribed in the old box: the corners of a person's box are empty,
    and the box of the turned corners would be far too wide. Crowds take the box of the corners.
    """
    height, width = image.shape[:2]
    # warpAffine counts from the middle of the first pixel, boxes from its outer edge: half a pixel apart.
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    gray = (_GRAY, _GRAY, _GRAY)
    turned = cv2.warpAffine(np.ascontiguousarray(image), matrix, (width, height), borderValue=gray).astype(np.uint8)
    linear, middle = matrix[:, :2], np.array([width, height]) / 2

    def moved(boxes: npt.NDArray[np.float64], halves: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle) @ linear.T + middle
        return np.concatenate([centres - halves, centres + halves], 1)

    people_halves = np.sqrt(((people[:, 2:] - people[:, :2]) / 2) ** 2 @ (linear**2).T)
    crowd_halves = (crowds[:, 2:] - crowds[:, :2]) / 2 @ np.abs(linear).T
    return turned, moved(people, people_halves), moved(crowds, crowd_halves)


def _to_canvas(
    boxes: FloatArray,
    low: npt.NDArray[np.int64],
    scales: npt.NDArray[np.float64],
    filled: npt.NDArray[np.int64],
    mirrored: bool,
) -> npt.NDArray[np.float64]:
    """Boxes (n, 4) of the source in pixels of the scaled, possibly mirrored window."""
    moved = (boxes.astype(np.float64) - np.tile(low, 2)) * np.tile(scales, 2)
    if mirrored:
        moved[:, [0, 2]] = filled[0] - moved[:, [2, 0]]
    return moved


def _clip(boxes: npt.NDArray[np.float64], region: FloatArray) -> FloatArray:
    low = np.maximum(boxes[:, :2], region[:2])
    high = np.maximum(np.minimum(boxes[:, 2:], region[2:]), low)
    return np.concatenate([low, high], 1).astype(np.float32)


def _area(boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
