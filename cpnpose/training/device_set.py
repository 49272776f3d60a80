"""A whole training set in the memory of the device, so that a step waits for no transfer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpnpose.training.dataset import CropCache, PoseBatch

_ROWS_AT_ONCE = 512
_LARGEST_SHARE = 0.5
"""Of the free memory; the rest is the network's."""


@dataclass(frozen=True)
class DeviceSet:
    """All crops of a cache on one device."""

    pixels: Tensor
    """(N, h, w, 3) uint8."""
    keypoints_xy: Tensor
    """(N, 17, 2) float32 pixels of the cached crop."""
    visibility: Tensor
    """(N, 17) uint8."""

    def batch_of(self, rows: npt.NDArray[np.int64]) -> PoseBatch:
        """The same as :func:`~cpnpose.training.dataset.batch_of`, gathered on the device."""
        index = torch.from_numpy(rows).to(self.pixels.device)
        return PoseBatch(self.pixels[index].permute(0, 3, 1, 2), self.keypoints_xy[index], self.visibility[index])


def fits(cache: CropCache, device: torch.device) -> bool:
    """Whether the device is a CUDA card with room for the set beside the network."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return cache.pixels.nbytes <= _LARGEST_SHARE * free


def load_on_device(cache: CropCache, device: torch.device) -> DeviceSet:
    """Copy the whole cache to the device, a part at a time."""
    pixels = torch.empty(cache.pixels.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(cache), _ROWS_AT_ONCE):
        part = np.array(cache.pixels[start : start + _ROWS_AT_ONCE])  # read from the memory map
        pixels[start : start + len(part)] = torch.from_numpy(part).to(device)
    keypoints, visibility = torch.from_numpy(cache.keypoints_xy), torch.from_numpy(cache.visibility)
    return DeviceSet(pixels, keypoints.to(device), visibility.to(device))
