"""People cut out of images that lie on the device of the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpnpose.pipeline.batches import HalvingBatch
from cpnpose.pipeline.crop import crop_persons, people_of, shrink_factor
from cpnpose.pose.geometry import invert_affines
from cpnpose.pose.types import Detections, FloatArray, ImageArray, IntArray, PersonCrops, Picture, Preprocessing

_FLOAT_BYTES = 256 << 20
"""For the sampling, images become float32: as many at a time as need so much memory, but one at least."""


def crop_people(
    images: Sequence[Picture],
    detections: Sequence[Detections],
    input_size: tuple[int, int],
    preprocessing: Preprocessing,
) -> PersonCrops:
    """As :func:`~cpnpose.pipeline.crop.crop_persons`, which does it for arrays. Of images that are tensors, uint8
    (H, W, 3), the crops are made on their device, and are equal up to rounding.

    Raises:
        CpnposeError: the device's memory does not suffice for the people of a single image.
    """
    if not any(isinstance(image, Tensor) for image in images):
        return crop_persons(cast("Sequence[ImageArray]", images), detections, input_size, preprocessing)
    tensors = [cast(Tensor, image) for image in images]
    boxes, scores, frames, affines = people_of(detections, input_size, preprocessing)
    pixels = torch.empty((len(boxes), *input_size, 3), dtype=torch.uint8, device=tensors[0].device)
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for row, (frame, affine) in enumerate(zip(frames.tolist(), affines, strict=True)):
        height, width, _ = tensors[frame].shape
        groups[height, width, min(shrink_factor(affine), height, width)].append(row)
    for (height, width, factor), members in groups.items():
        rows = np.array(members)
        used, places = np.unique(frames[rows], return_inverse=True)
        cut = partial(_cut, pixels, [tensors[frame] for frame in used], places, rows, affines, preprocessing, factor)
        batch = HalvingBatch(max(1, _FLOAT_BYTES // (12 * height * width)), pixels.device)
        batch.map(cut, len(used), f"to cut people out of a single {width}x{height} image")
    return PersonCrops(pixels, affines, frames, boxes, scores)


def _cut(
    pixels: Tensor,
    images: Sequence[Tensor],
    places: IntArray,
    rows: IntArray,
    affines: FloatArray,
    preprocessing: Preprocessing,
    factor: int,
    part: slice,
) -> None:
    """Fill the rows of ``pixels`` that show people of the images in ``part``; ``places`` are the rows' images."""
    chosen = (places >= part.start) & (places < part.stop)
    size = (pixels.shape[1], pixels.shape[2])
    mine = rows[chosen]
    stack = torch.stack(list(images[part]))
    pixels[mine] = _sampled(stack, places[chosen] - part.start, affines[mine], size, preprocessing.mean, factor)


def _sampled(
    images: Tensor,
    places: IntArray,
    affines: FloatArray,
    size: tuple[int, int],
    fill: tuple[float, float, float],
    factor: int,
) -> Tensor:
    """Crops uint8 (n, height, width, 3), by one sampling of a volume whose depth is the image's number.

    Args:
        images: uint8 (B, H, W, 3).
        places: (n,) which of the images each crop is of.
        affines: (n, 2, 3), image to crop, corner-origin.
        size: (height, width).
        fill: the colour outside of the images.
        factor: by which the images are shrunk by area first.
    """
    device = images.device
    volume = images.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
    if factor > 1:
        volume = F.avg_pool2d(volume, factor).round_()
    colour = torch.tensor(fill, device=device).view(3, 1, 1)
    volume = volume.sub_(colour).transpose(0, 1)[None]  # (1, 3, B, H, W); 0 is the colour outside
    back = torch.from_numpy(invert_affines(affines)).to(device)
    x = torch.arange(size[1], device=device) + 0.5
    y = torch.arange(size[0], device=device) + 0.5
    crop_points = torch.stack([x.expand(size), y[:, None].expand(size), torch.ones(size, device=device)], -1)
    points = crop_points.flatten(0, 1) @ back.transpose(1, 2) / factor  # (n, height * width, 2)
    depth = torch.from_numpy(places).to(device, torch.float32) + 0.5
    grid = torch.cat([points, depth[:, None, None].expand(-1, points.shape[1], 1)], -1)
    limits = grid.new_tensor([volume.shape[4], volume.shape[3], volume.shape[2]])
    grid = (grid * 2 / limits - 1).view(1, len(affines), *size, 3)
    sampled = F.grid_sample(volume, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled[0].add_(colour[:, None]).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
