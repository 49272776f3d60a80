"""Images on the device where a network looks at them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpnpose.pose.types import ImageArray, Picture

_LOCKED_BYTES = 64 << 20
"""Of page-locked memory that a copy to a graphics card starts from: some of such blocks are used in turns."""


def upload(images: Sequence[ImageArray], device: torch.device) -> list[Picture]:
    """The images (H, W, 3) uint8 where ``device`` reads them: on a CPU as they are, else as tensors on the device.

    To a graphics card they go from page-locked memory, so the copying runs beside whatever other streams compute.
    """
    if device.type == "cpu":
        return list(images)
    if device.type != "cuda" or len({image.shape for image in images}) != 1:
        return [_on(image, device) for image in images]
    at_once = max(1, _LOCKED_BYTES // max(1, images[0].nbytes))
    blocks = [_block(images[start : start + at_once], device) for start in range(0, len(images), at_once)]
    return [image for block in blocks for image in block.unbind()]


def _block(images: Sequence[ImageArray], device: torch.device) -> Tensor:
    """Images of one shape on a graphics card, (N, H, W, 3), brought there by one copy."""
    block = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
    for place, image in zip(block.numpy(), images, strict=True):
        np.copyto(place, image)
    return block.to(device, non_blocking=True)


def resized(images: Sequence[Picture], height: int, width: int, device: torch.device) -> Tensor:
    """Images of one shape as uint8 (N, height, width, 3) on the device: arrays for a CPU are shrunk by OpenCV, all
    others on the device."""
    arrays = [image for image in images if not isinstance(image, Tensor)]
    if device.type == "cpu" and len(arrays) == len(images):
        return torch.from_numpy(np.stack([shrink(image, height, width) for image in arrays]))
    pixels = torch.stack([_on(image, device) for image in images]).permute(0, 3, 1, 2).float()
    sized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return sized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def shrink(image: ImageArray, height: int, width: int) -> ImageArray:
    """An image (H, W, 3) at (height, width): halved by means of four pixels as long as it stays as large and its sides
    are even, then bilinear, which is several times as fast as OpenCV's INTER_AREA. Where odd sides leave it more than
    twice too large, INTER_AREA does the rest."""
    while (
        image.shape[0] >= 2 * height and image.shape[1] >= 2 * width and not any(side % 2 for side in image.shape[:2])
    ):
        half = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == (height, width):
        return image
    way = cv2.INTER_AREA if max(image.shape[0] / height, image.shape[1] / width) > 2 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)


def _on(image: Picture, device: torch.device) -> Tensor:
    if isinstance(image, Tensor):
        return image
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
