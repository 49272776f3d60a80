"""The picture of a training run's validation people."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cpnpose.pose.types import PersonCrops, Poses
from cpnpose.training.picture import people_picture


def test_the_picture_shows_skeletons_and_leaves_the_crops_alone(tmp_path: Path) -> None:
    pixels = np.zeros((3, 64, 64, 3), np.uint8)
    boxes = np.array([[0, 0, 64, 64]] * 3, np.float32)
    affines = np.array([[[1, 0, 0], [0, 1, 0]]] * 3, np.float32)
    crops = PersonCrops(pixels, affines, np.arange(3), boxes, np.ones(3, np.float32))
    xy = np.random.default_rng(0).uniform(8, 56, (3, 17, 2)).astype(np.float32)
    sure = np.ones((3, 17), np.float32)
    poses = Poses(xy, sure, np.ones(3, np.float32), boxes, np.ones(3, np.float32))
    truth = np.concatenate([xy + 3, 2 * sure[..., None]], axis=2)
    people_picture(tmp_path / "people.png", crops, poses, truth, columns=2, rows=2)
    sheet = cv2.imread(str(tmp_path / "people.png"))
    assert sheet is not None
    assert sheet.shape == (128, 128, 3)
    assert all(sheet[y : y + 64, x : x + 64].any() for y, x in ((0, 0), (0, 64), (64, 0)))
    assert not sheet[64:, 64:].any()
    assert not pixels.any()
