"""The codec of heatmaps: keypoints to target maps, and maps back to keypoints. All of it batched torch.

Maps are (N, K, h, w) at stride 4 of the crop: heatmap pixel x covers crop pixels 4x to 4x + 4, its centre is 4x + 2.
A sure keypoint has a peak of about 255.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cpnpose.pose.keypoints import FLIP_INDEX

PEAK = 255.0
"""Height of a keypoint's Gaussian."""
Decoding = Literal["published", "dark"]
_BORDER = 10
_BLUR_SIGMA = 3.5  # what OpenCV derives for a kernel of 21
_DARK_KERNEL = 11
_DARK_SIGMA = 2.0
_CPU_PEOPLE = 8  # are decoded at once: more would leave the cache


def target_sigmas(input_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Sigmas in heatmap pixels of the four levels, coarse to fine (CPN paper's kernels at its two input sizes).

    They are given for input heights 256 and 384; other heights follow the line through these two, and do not fall
    below 70 % of the values at 256.
    """
    at_256, at_384 = (2.6, 2.0, 1.7, 1.4), (3.8, 2.9, 2.3, 1.7)
    position = (input_size[0] - 256) / 128
    first, second, third, fourth = (max(a + (b - a) * position, 0.7 * a) for a, b in zip(at_256, at_384, strict=True))
    return first, second, third, fourth


def gaussian_targets(
    keypoints_xy: Tensor, labelled: Tensor, sigma: float, size: tuple[int, int], *, quantised: bool = False
) -> Tensor:
    """Gaussian target maps with peak 255.

    Args:
        keypoints_xy: (N, K, 2) crop pixels, corner-origin.
        labelled: (N, K) bool; a keypoint that is not labelled gets an empty map.
        sigma: in heatmap pixels.
        size: (h, w) of the maps.
        quantised: put the peak on the heatmap pixel that holds the keypoint, as published, instead of on the
            keypoint's true place (unbiased coding).

    Returns:
        (N, K, h, w) float32.
    """
    centre = keypoints_xy.float() / 4
    centre = centre.floor() if quantised else centre - 0.5
    x = torch.arange(size[1], device=centre.device, dtype=torch.float32)
    y = torch.arange(size[0], device=centre.device, dtype=torch.float32)
    scale = -0.5 / sigma**2
    along_x = torch.exp(scale * (x - centre[..., 0:1]) ** 2)  # (N, K, w)
    along_y = torch.exp(scale * (y - centre[..., 1:2]) ** 2)  # (N, K, h)
    along_y = along_y * (labelled.float() * PEAK)[..., None]
    return along_y[..., :, None] * along_x[..., None, :]


def mirror_maps(maps: Tensor) -> Tensor:
    """Maps of a mirrored crop, turned back: columns reversed, left and right channels exchanged. Same shape."""
    return maps.flip(-1)[:, list(FLIP_INDEX)]


def merge_flipped(maps: Tensor, maps_of_mirrored: Tensor) -> Tensor:
    """Flip test: mean of the crop's maps and the turned-back maps of its mirror image, both (N, 17, h, w)."""
    return (maps + mirror_maps(maps_of_mirrored)) / 2


def decode(maps: Tensor, method: Decoding = "dark") -> tuple[Tensor, Tensor]:
    """Keypoints of heatmaps by the named method; see :func:`decode_published` and :func:`decode_dark`."""
    return decode_published(maps) if method == "published" else decode_dark(maps)


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
    limit = place.new_tensor([w - 1, h - 1])
    place = place.clamp_min(0).minimum(limit).view(n, k, 2)
    return place * 4 + 2, _score_at(maps, place.round().long())


def decode_dark(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Distribution-aware decoding: a Newton step to the top of the Gaussian.

    The map is smoothed by a small Gaussian, and the logarithm's first and second derivatives at its maximum give the
    keypoint to a fraction of a pixel (Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose
    Estimation", CVPR 2020, equations 4 to 9). Arguments and results as in :func:`decode_published`.
    """
    return _in_parts(_decode_dark, maps)


def _decode_dark(maps: Tensor) -> tuple[Tensor, Tensor]:
    n, k, h, w = maps.shape
    maps = maps.float()
    smooth = _blur(maps, 0, _DARK_KERNEL, _DARK_SIGMA)
    x, y = (index.view(n, k) for index in _largest(smooth.flatten(0, 1)))
    inner_x, inner_y = x.clamp(1, w - 2), y.clamp(1, h - 2)
    centre = inner_y * w + inner_x
    steps = torch.tensor([-w - 1, -w, -w + 1, -1, 0, 1, w - 1, w, w + 1], device=maps.device)
    window = smooth.flatten(2).gather(-1, (centre[..., None] + steps).flatten(2)).view(n, k, 9)
    logs = window.clamp_min(1e-3 * PEAK).log()
    dx = (logs[..., 5] - logs[..., 3]) / 2
    dy = (logs[..., 7] - logs[..., 1]) / 2
    dxx = logs[..., 5] - 2 * logs[..., 4] + logs[..., 3]
    dyy = logs[..., 7] - 2 * logs[..., 4] + logs[..., 1]
    dxy = (logs[..., 8] - logs[..., 6] - logs[..., 2] + logs[..., 0]) / 4
    determinant = dxx * dyy - dxy * dxy
    is_top = (determinant > 1e-6) & (dxx < 0) & (inner_x == x) & (inner_y == y)
    determinant = torch.where(is_top, determinant, torch.ones_like(determinant))
    move = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / determinant[..., None]
    move = torch.where(is_top[..., None], move.clamp(-1, 1), torch.zeros_like(move))
    place = torch.stack([x, y], -1)
    return (place + move) * 4 + 2, _score_at(maps, place)


def _score_at(maps: Tensor, place: Tensor) -> Tensor:
    """map / 255 + 0.5 at integer heatmap places (N, K, 2)."""
    index = place[..., 1] * maps.shape[-1] + place[..., 0]
    return maps.flatten(2).gather(-1, index[..., None])[..., 0] / PEAK + 0.5


def _in_parts(function: Callable[[Tensor], tuple[Tensor, Tensor]], maps: Tensor) -> tuple[Tensor, Tensor]:
    """``function(maps)``, on a CPU for a few people at once, with maps (N, K, h, w) contiguous."""
    size = _CPU_PEOPLE if maps.device.type == "cpu" else max(len(maps), 1)
    xy, scores = zip(*(function(part.contiguous()) for part in torch.split(maps, size)), strict=True)
    return torch.cat(xy), torch.cat(scores)


def _largest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """x and y, both (M,), of the largest value of each map (M, h, w), the first of equals. In two steps, by row and in
    the row, because the maximum itself is found much faster than its place."""
    y = maps.amax(-1).argmax(-1)
    return _row(maps, y).argmax(-1), y


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
def _blur_line(kernel: int, sigma: float) -> Tensor:
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
    table = _blur_line(kernel, sigma)
    return torch.where(inside, table[offset.clamp(0, kernel - 1)], torch.zeros(())).to(device)
