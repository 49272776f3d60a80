"""The batches of a detector training run: the batch of a step is always the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpnpose.models.detect_batch import network_size
from cpnpose.training.detector_augment import Canvas, compose
from cpnpose.training.detector_data import BoxDataset
from cpnpose.training.detector_options import DetectorTraining

_FINISH = 0.85
"""From this share of the schedule on, canvases are mostly whole images at the detector's own size."""
_SMALL = 0.722
"""Side of the square canvases, as a share of the square root of the detector's input pixels."""


@dataclass(frozen=True)
class DetectorBatch:
    """Canvases of one size."""

    pixels: Tensor
    """uint8 (N, H, W, 3)."""
    targets: list[dict[str, Tensor]]
    """Per canvas ``boxes``, ``ignore`` and ``doubtful``, see ``Detector.forward``."""
    names: list[str]
    """File names of the images in it."""


def make_batch(dataset: BoxDataset, options: DetectorTraining, number: int, fraction: float) -> DetectorBatch:
    """The batch of a step, made from the seed and the step's number.

    Args:
        number: of the step.
        fraction: of the schedule that is done; near the end mosaics become rare and canvases large.
    """
    rng = np.random.default_rng([options.seed, number])
    finishing = fraction >= _FINISH
    native = math.sqrt(options.config.input_pixels)
    small = max(1, round(native * _SMALL / 32)) * 32
    wide, tall = (network_size(*shape, options.config.input_pixels) for shape in ((3, 4), (4, 3)))
    size = ((small, small), wide, tall)[int(rng.choice(3, p=(0.2, 0.55, 0.25) if finishing else (0.55, 0.3, 0.15)))]
    count = max(1, round(options.batch * small * small / (size[0] * size[1])))
    mosaic, turn = (0.2, options.turn / 2) if finishing else (0.5, options.turn)
    canvases = [
        compose(dataset, rng, size, nominal_side=native, mosaic=mosaic, turn=turn, turn_degrees=options.turn_degrees)
        for _ in range(count)
    ]
    names = [dataset.samples[i].path.name for canvas in canvases for i in canvas.indices]
    pixels = torch.from_numpy(np.stack([canvas.pixels for canvas in canvases]))
    return DetectorBatch(pixels, [_target(canvas) for canvas in canvases], names)


def _target(canvas: Canvas) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(canvas.boxes_xyxy),
        "ignore": torch.from_numpy(canvas.ignore_xyxy),
        "doubtful": torch.from_numpy(canvas.doubtful_xyxy),
    }
