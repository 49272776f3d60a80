"""A picture of validation images with predicted and true boxes of people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cpnpose.pose.types import Detections, FloatArray, ImageArray
from cpnpose.whole_file import whole_file

_PREDICTED, _TRUE = (255, 140, 0), (0, 220, 90)
_TILE = (240, 320)


def boxes_picture(
    path: Path,
    images: Sequence[ImageArray],
    found: Sequence[Detections],
    truth: Sequence[FloatArray],
    *,
    score: float,
    columns: int = 4,
) -> None:
    """Write a sheet of images: predicted boxes from ``score`` on orange, with their scores, true ones (n, 4) green.

    The file appears under its name only when whole.
    """
    height, width = _TILE
    tiles = []
    for image, people, boxes in zip(images, found, truth, strict=True):
        scale = min(height / image.shape[0], width / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        tile = np.zeros((height, width, 3), np.uint8)
        tile[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for box in boxes:
            _rectangle(tile, box * scale, _TRUE)
        for box, value in zip(people.boxes_xyxy, people.scores, strict=True):
            if value >= score:
                corner = _rectangle(tile, box * scale, _PREDICTED)
                where = (corner[0] + 1, max(8, corner[1] - 2))
                cv2.putText(tile, f"{value:.2f}", where, cv2.FONT_HERSHEY_SIMPLEX, 0.3, _PREDICTED, 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros((height, width, 3), np.uint8)] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    with whole_file(path) as part:
        cv2.imwrite(str(part), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _rectangle(image: ImageArray, box: FloatArray, colour: tuple[int, int, int]) -> tuple[int, int]:
    x1, y1, x2, y2 = (int(value) for value in np.floor(box))
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 1)
    return x1, y1
