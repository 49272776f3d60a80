"""Keypoints of heatmaps, as published or by distribution-aware decoding. All of it batched torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cpnpose.pose.heatmaps import PEAK

Decoding = Literal["published", "dark"]
_BORDER = 10
_BLUR_SIGMA = 3.5  # what OpenCV derives for a kernel of 21
_SHARP_SIGMA = 0.7
_SHARP_REACH = 2
"""Pixels to each side of the largest that are looked at: one for the derivatives, one for smoothing."""
_BROAD_SIGMA = 4.0
_BROAD_STEP = 4
_GUESS, _CERTAIN = 0.5, 0.7
"""Of a certain joint's value: below the first a joint is guessed, above the second it is seen."""
_CPU_PEOPLE = 8  # are blurred at once: more would leave the cache


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
    place = _inside(place, (h, w)).view(n, k, 2)
    return place * 4 + 2, _score_at(maps, place.round().long())


def decode_dark(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Distribution-aware decoding: a Newton step to the top of the Gaussian.

    The first and second derivatives of the logarithm of a smoothed map give the keypoint to a fraction of a pixel
    (Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020, equations 4 to
    9). How much is smoothed depends on the network's certainty. Where the map's largest value says that the joint is
    there, its 3x3 pixels count, smoothed by a sigma of 0.7 pixels. Where the joint is guessed, the map has no one top,
    and the top of the map smoothed by a sigma of 4 is closer and does not jump from frame to frame. In between, the
    two are mixed. One sigma of 2 for all, as by the paper, costs two points of AP with our networks.

    Arguments as in :func:`decode_published`. Returns (N, K, 2) float32 crop pixels, corner-origin, and (N, K) float32
    scores: the map's largest value / 255 + 0.5.
    """
    n, k, h, w = maps.shape
    values, first, pixel = _as_in_memory(maps)
    sharp, heat = _sharp_top(values, first, pixel, (h, w))
    broad = _broad_top(values, pixel, (h, w))
    certainty = ((heat / PEAK - _GUESS) / (_CERTAIN - _GUESS)).clamp(0, 1)[:, None]
    top = broad + (sharp - broad) * certainty
    top = _inside(top, (h, w))
    return (top * 4 + 2).view(n, k, 2), (heat / PEAK + 0.5).view(n, k)


def _sharp_top(values: Tensor, first: Tensor, pixel: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The top near each map's largest value, (N K, 2) heatmap pixels, and that value, (N K,); arguments as
    :func:`_as_in_memory` gives them, and (h, w). Outside a map lies its border's value."""
    h, w = size
    x, y = _largest(values, first, pixel, size)
    window = torch.arange(-_SHARP_REACH, _SHARP_REACH + 1, device=values.device)
    rows, columns = (y[:, None] + window).clamp(0, h - 1), (x[:, None] + window).clamp(0, w - 1)
    places = (rows[:, :, None] * w + columns[:, None, :]) * pixel + first[:, None, None]
    around = _at(values, places).float().flatten(1)
    step = _newton_step(around @ _sharp_smoothing(values.device))
    return torch.stack([x, y], -1) + step, around[:, around.shape[1] // 2]


@functools.lru_cache(maxsize=8)
def _sharp_smoothing(device: torch.device) -> Tensor:
    """The matrix from a window's pixels, row by row, to its 9 smoothed middle ones."""
    line = _blur_line(2 * _SHARP_REACH - 1, _SHARP_SIGMA)
    along = torch.stack([F.pad(line, (i, 2 - i)) for i in range(3)])  # (3, window)
    return torch.einsum("ay,bx->yxab", along, along).reshape(along.shape[1] ** 2, 9).to(device)


def _broad_top(values: Tensor, pixel: int, size: tuple[int, int]) -> Tensor:
    """The top of each broadly smoothed map, (N K, 2) heatmap pixels; arguments as in :func:`_sharp_top`.

    So smooth a map is known from every fourth pixel of every fourth row, and these alone are computed.
    """
    h, w = size
    (places_y, down), (places_x, across) = (_broad_smoothing(side, values.dtype, values.device) for side in size)
    rows, columns = len(down), len(across)
    smooth = (down @ values.view(-1, h, w * pixel)).view(-1, w, pixel)
    smooth = (across @ smooth).view(-1, rows, columns, pixel)
    inner = smooth[:, 1:-1, 1:-1].flatten(1, 2).max(1).indices.flatten()  # (N K,)
    y, x = inner // (columns - 2) + 1, inner % (columns - 2) + 1
    ring = torch.arange(-1, 2, device=values.device)
    grid = smooth.permute(0, 3, 1, 2).reshape(-1, rows * columns)
    around = grid.gather(1, (y * columns + x)[:, None] + (ring[:, None] * columns + ring).flatten())
    return torch.stack([places_x[x], places_y[y]], -1) + _newton_step(around.float()) * _BROAD_STEP


@functools.lru_cache(maxsize=32)
def _broad_smoothing(length: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Along one axis: where the smoothed values lie, (n,) float32 heatmap pixels, the first and the last of them
    outside the map, and the (n, length) matrix that computes them. Outside the map there is nothing."""
    count = (length - 1) // _BROAD_STEP + 3
    places = (torch.arange(count) - (count - 1) / 2) * _BROAD_STEP + (length - 1) / 2
    weights = torch.exp(-0.5 * ((places[:, None] - torch.arange(length)) / _BROAD_SIGMA) ** 2)
    weights /= _BROAD_SIGMA * math.sqrt(2 * math.pi)
    return places.to(device), weights.to(device, dtype)


def _newton_step(values: Tensor) -> Tensor:
    """From the middle of 3x3 smoothed pixels (M, 9) to the top of the Gaussian there: (M, 2) as x, y, at most a pixel
    each; 0 where there is no top."""
    logs = values.clamp_min(1e-3 * PEAK).log().unbind(1)
    dx = (logs[5] - logs[3]) / 2
    dy = (logs[7] - logs[1]) / 2
    dxx = logs[5] - 2 * logs[4] + logs[3]
    dyy = logs[7] - 2 * logs[4] + logs[1]
    dxy = (logs[8] - logs[6] - logs[2] + logs[0]) / 4
    determinant = dxx * dyy - dxy * dxy
    is_top = (determinant > 1e-6) & (dxx < 0)
    determinant = torch.where(is_top, determinant, 1.0)
    move = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / determinant[:, None]
    return torch.where(is_top[:, None], move.clamp(-1, 1), 0.0)


def _as_in_memory(maps: Tensor) -> tuple[Tensor, Tensor, int]:
    """Maps (N, K, h, w) without a copy, channels-last or not: all values in a row, the place of each map's first value
    (N K,), and how many places the pixels of a map are apart."""
    n, k, h, w = maps.shape
    person = torch.arange(n, device=maps.device)[:, None]
    joint = torch.arange(k, device=maps.device)
    if maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous():
        return maps.permute(0, 2, 3, 1).reshape(-1), (person * (h * w * k) + joint).flatten(), k
    return maps.reshape(-1), ((person * k + joint) * (h * w)).flatten(), 1


def _largest(values: Tensor, first: Tensor, pixel: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """x and y, both (N K,), of each map's largest value; arguments as :func:`_as_in_memory` gives them, and (h, w).

    First each column's largest value, then where it is in the best column: several times as fast as an argmax over all
    pixels.
    """
    h, w = size
    columns = values.view(-1, h, w * pixel).amax(1).float().view(-1, w, pixel)
    x = columns.transpose(1, 2).reshape(-1, w).argmax(-1)
    down = torch.arange(h, device=values.device) * (w * pixel)
    return x, _at(values, (first + x * pixel)[:, None] + down).float().argmax(-1)


def _inside(places: Tensor, size: tuple[int, int]) -> Tensor:
    """Places (M, 2) as x, y, moved into a map of (h, w)."""
    h, w = size
    x, y = places.unbind(-1)
    return torch.stack([x.clamp(0, w - 1), y.clamp(0, h - 1)], -1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """``values[places]`` of values (m,), several times as fast."""
    return values.index_select(0, places.flatten()).view(places.shape)


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
