"""The first part of a network, whose maps are large, on a CPU: a few images at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_BYTES = 800_000
"""Of one channel of the images that go through together. The widest maps have some twenty times as many: those of more
images would leave the caches, and their convolutions take up to three times as long."""


def in_parts(stem: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """``stem(images)`` for images (N, C, H, W), on a CPU as many at once as its caches hold, one at least."""
    height, width = images.shape[2:]
    at_once = max(1, _BYTES // (height * width * images.element_size()))
    if images.device.type != "cpu" or len(images) <= at_once:
        return stem(images)
    return torch.cat([stem(part) for part in images.tensor_split(-(-len(images) // at_once))])
