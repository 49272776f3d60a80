"""The decoding of heatmaps by the public implementation. Batched torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from cpnpose.pose.heatmaps import PEAK

_BORDER = 10
_BLUR_SIGMA = 3.5  # what OpenCV derives for a kernel of 21
_CPU_PEOPLE = 8  # are blurred at once: more would leave the cache


def decode_published(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The decoding of the public implementation: blurred argmax and a quarter-pixel shift.

    Each map is divided by its maximum, padded by 10 and blurred with a 21x21 Gaussian; the keypoint is the maximum,
    moved by a quarter pixel towards the largest other value.

    Args:
        maps: (N, K, h, w).

    Returns:
        (N, K, 2) float32 crop pixels, corner-origin, and (N, K) float32 scores: map / 255 + 0.5 at the keypoint.
    """
    return _in_parts(_decode_published, maps)


def _decode_published(maps: Tensor) -> tuple[Tensor, Tensor]:
    n, k, h, w = maps.shape
    maps = maps.float()
    # To divide by a positive maximum would move no maximum; a negative one turns the map round.
    turned = torch.where(maps.flatten(2).amax(-1, keepdim=True) < 0, -1.0, 1.0)
    blurred = _blur(maps * turned[..., None], _BORDER, 2 * _BORDER + 1, _BLUR_SIGMA).flatten(0, 1)
    first, second = _two_largest(blurred)  # (N K, 2)
    step = (second - first).float()
    place = first - _BORDER + 0.25 * step / step.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    place = _inside(place, (h, w)).view(n, k, 2)
    return place * 4 + 2, _score_at(maps, place.round().long())


def _inside(places: Tensor, size: tuple[int, int]) -> Tensor:
    """Places (M, 2) as x, y, moved into a map of (h, w)."""
    h, w = size
    x, y = places.unbind(-1)
    return torch.stack([x.clamp(0, w - 1), y.clamp(0, h - 1)], -1)


def _score_at(maps: Tensor, place: Tensor) -> Tensor:
    """map / 255 + 0.5 at integer heatmap places (N, K, 2)."""
    index = place[..., 1] * maps.shape[-1] + place[..., 0]
    return maps.flatten(2).gather(-1, index[..., None])[..., 0] / PEAK + 0.5


def _in_parts(function: Callable[[Tensor], tuple[Tensor, Tensor]], maps: Tensor) -> tuple[Tensor, Tensor]:
    """``function(maps)``, on a CPU for a few people at once, with maps (N, K, h, w) contiguous."""
    size = _CPU_PEOPLE if maps.device.type == "cpu" else max(len(maps), 1)
    xy, scores = zip(*(function(part.contiguous()) for part in torch.split(maps, size)), strict=True)
    return torch.cat(xy), torch.cat(scores)


def _two_largest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(x, y), both (M, 2), of the largest and the second largest value of each map (M, h, w)."""
    rows = maps.amax(-1)  # (M, h)
    y = rows.argmax(-1)
    row = _row(maps, y)
    x = row.argmax(-1)
    rest = row.scatter(-1, x[:, None], -math.inf)  # the row without the largest
    other_y = rows.scatter(-1, y[:, None], rest.amax(-1, keepdim=True)).argmax(-1)
    other_x = torch.where((other_y == y)[:, None], rest, _row(maps, other_y)).argmax(-1)
    return torch.stack([x, y], -1), torch.stack([other_x, other_y], -1)


def _row(maps: Tensor, y: Tensor) -> Tensor:
    """Row y (M,) of each map (M, h, w): (M, w)."""
    return maps[torch.arange(len(maps), device=maps.device), y]


def _blur(maps: Tensor, border: int, kernel: int, sigma: float) -> Tensor:
    """Pad maps (N, K, h, w) by zeros and blur them: (N, K, h + 2 border, w + 2 border). As products of matrices,
    which are quicker than a convolution although most of their entries are zeros."""
    along_y = _blur_matrix(maps.shape[-2], border, kernel, sigma, maps.device)
    along_x = _blur_matrix(maps.shape[-1], border, kernel, sigma, maps.device)
    return along_y @ (maps @ along_x.T)


@functools.lru_cache(maxsize=8)
def gaussian_line(kernel: int, sigma: float) -> Tensor:
    """(kernel,) Gaussian of sum 1."""
    line = torch.exp(-0.5 * ((torch.arange(kernel) - kernel // 2) / sigma) ** 2)
    return line / line.sum()


@functools.lru_cache(maxsize=32)
def _blur_matrix(length: int, border: int, kernel: int, sigma: float, device: torch.device) -> Tensor:
    """(length + 2 border, length) matrix that pads by zeros and blurs along one axis."""
    radius = kernel // 2
    rows = torch.arange(length + 2 * border)[:, None] - border
    offset = rows - torch.arange(length)[None] + radius
    inside = (offset >= 0) & (offset < kernel)
    table = gaussian_line(kernel, sigma)
    return torch.where(inside, table[offset.clamp(0, kernel - 1)], torch.zeros(())).to(device)
