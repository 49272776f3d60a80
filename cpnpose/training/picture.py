"""A picture of people with their predicted and true skeletons."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cpnpose.pose.geometry import transform_points
from cpnpose.pose.keypoints import SKELETON
from cpnpose.pose.types import FloatArray, PersonCrops, Poses

_PREDICTED, _TRUE = (255, 140, 0), (0, 220, 90)


def people_picture(
    path: Path, crops: PersonCrops, poses: Poses, truth: FloatArray, columns: int = 8, rows: int = 3
) -> None:
    """Write evenly chosen people as a sheet of crops: predicted skeletons orange, true ones green.

    Args:
        crops: N people.
        poses: N predictions, image pixels.
        truth: (N, 17, 3) x, y, v in image pixels.
    """
    chosen = np.unique(np.linspace(0, len(crops) - 1, columns * rows).round().astype(int))
    predicted = transform_points(crops.affines[chosen], poses.keypoints_xy[chosen])
    true = transform_points(crops.affines[chosen], truth[chosen][..., :2])
    tiles = []
    for row, mine, theirs in zip(chosen, predicted, true, strict=True):
        tile = np.array(crops.pixels[row])  # a copy: the crops are looked at again
        _skeleton(tile, theirs, truth[row, :, 2] > 0, _TRUE)
        _skeleton(tile, mine, poses.keypoint_scores[row] > 0.65, _PREDICTED)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _skeleton(image: np.ndarray, points: FloatArray, shown: np.ndarray, colour: tuple[int, int, int]) -> None:
    places = np.round(points * 16 - 8).astype(int)
    for a, b in SKELETON:
        if shown[a] and shown[b]:
            cv2.line(image, tuple(places[a].tolist()), tuple(places[b].tolist()), colour, 1, cv2.LINE_AA, 4)
    for k in np.flatnonzero(shown):
        cv2.circle(image, tuple(places[k].tolist()), 24, colour, -1, cv2.LINE_AA, 4)
