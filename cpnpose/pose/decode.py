"""Keypoints of heatmaps by distribution-aware decoding, or as published. All of it batched torch."""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cpnpose.pose.decode_published import decode_published, gaussian_line
from cpnpose.pose.heatmaps import PEAK

Decoding = Literal["published", "dark"]
_SHARP_SIGMA = 0.7
_SHARP_REACH = 2
"""Pixels to each side of the largest that are looked at: one for the derivatives, one for smoothing."""
_BROAD_SIGMA = 4.0
_BROAD_STEP = 4
_GUESS, _CERTAIN = 0.5, 0.7
"""Of a certain joint's value: below the first a joint is guessed, above the second it is seen."""
_CPU_COLUMNS = 8  # are searched at once, at most


def decode(maps: Tensor, method: Decoding = "dark") -> tuple[Tensor, Tensor]:
    """Keypoints of heatmaps by the named method; see :func:`decode_published` and :func:`decode_dark`."""
    return decode_published(maps) if method == "published" else decode_dark(maps)


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
    grid = _as_in_memory(maps)
    tables = _tables((h, w), grid.shape[3], maps.dtype, maps.device)
    heat, sharp = _largest(grid, (h, w))
    smooth = _smoothed(grid, tables)
    _, broad = _largest(smooth, (smooth.shape[1] - 2, smooth.shape[2] - 2))  # none of those outside the map
    near = _at(grid, tables.windows, sharp, tables.joints) @ tables.sharpen
    broad_near = _at(smooth, tables.rings, broad, tables.joints)
    step, broad_step = _newton_step(torch.cat([near, broad_near]), tables.derivatives).chunk(2)
    sharp_top = tables.places.index_select(0, sharp) + step
    broad_top = tables.broad_places.index_select(0, broad).add(broad_step, alpha=_BROAD_STEP)
    heat = heat / PEAK
    certainty = ((heat - _GUESS) * (1 / (_CERTAIN - _GUESS))).clamp(0, 1)
    top = torch.lerp(broad_top, sharp_top, certainty)
    top = torch.minimum(top.clamp_min(0), tables.limit)
    return (top * 4 + 2).view(n, k, 2), (heat + 0.5).view(n, k)


class _Tables(NamedTuple):
    """What :func:`decode_dark` knows of maps before it sees them. Where a value is means its place in memory, counted
    from the map's first value."""

    places: Tensor
    """(h w, 2) float32: each pixel as x, y."""
    windows: Tensor
    """(h w, 25): where the window around each pixel is. Outside a map lies its border's value."""
    sharpen: Tensor
    """(25, 9) from a window's pixels, row by row, to its 3x3 smoothed middle ones."""
    down: Tensor
    """(rows, h) from the pixels along y to the broadly smoothed values. Outside a map there is nothing."""
    across: Tensor
    """(columns, w) the same along x."""
    broad_places: Tensor
    """(rows columns, 2) float32: each smoothed value's x, y in heatmap pixels."""
    rings: Tensor
    """(rows columns, 9): where each smoothed value and those around it are."""
    derivatives: Tensor
    """(8, 9) from 3x3 pixels, row by row, to the derivatives by x, y, y, x, twice y, twice x, both, and -32 times that
    by twice x."""
    limit: Tensor
    """(2,) float32: the last pixel's x, y."""
    joints: Tensor
    """(p, 1): where the first values of maps that lie side by side are, counted from that of the first map."""


@functools.lru_cache(maxsize=32)
def _tables(size: tuple[int, int], pixel: int, dtype: torch.dtype, device: torch.device) -> _Tables:
    """For maps of (h, w) whose pixels are ``pixel`` places apart."""
    window = torch.arange(-_SHARP_REACH, _SHARP_REACH + 1)
    y, x = (torch.arange(side) for side in size)
    windows = [(along[:, None] + window).clamp(0, len(along) - 1) for along in (y, x)]
    line = gaussian_line(2 * _SHARP_REACH - 1, _SHARP_SIGMA)
    sharpen = torch.stack([F.pad(line, (i, 2 - i)) for i in range(3)])  # (3, window)
    broad_y, broad_x = (_broad_places(side) for side in size)
    first, second, none = torch.tensor([[-0.5, 0.0, 0.5], [1.0, -2.0, 1.0], [0.0, 1.0, 0.0]])
    by_x, by_y = torch.outer(none, first), torch.outer(first, none)
    twice_y, twice_x = torch.outer(second, none), torch.outer(none, second)
    derivatives = torch.stack([by_x, by_y, by_y, by_x, twice_y, twice_x, torch.outer(first, first), -32 * twice_x])
    tables = _Tables(
        places=torch.cartesian_prod(y, x).flip(1).float(),
        windows=_pairs(*windows) * pixel,
        sharpen=torch.einsum("ay,bx->yxab", sharpen, sharpen).reshape(-1, 9),
        down=_broad_weights(broad_y, size[0]).to(dtype),
        across=_broad_weights(broad_x, size[1]).to(dtype),
        broad_places=torch.cartesian_prod(broad_y, broad_x).flip(1),
        rings=_pairs(_neighbours(len(broad_y)), _neighbours(len(broad_x))) * pixel,
        derivatives=derivatives.flatten(1),
        limit=torch.tensor([size[1] - 1.0, size[0] - 1.0]),
        joints=torch.arange(pixel)[:, None],
    )
    return _Tables(*(table.to(device) for table in tables))


def _broad_places(length: int) -> Tensor:
    """Where along one axis of so many pixels the broadly smoothed values are, (n,) float32, in ascending order but for
    the last two, which lie outside, one on each side."""
    count = (length - 1) // _BROAD_STEP + 3
    places = (torch.arange(count) - (count - 1) / 2) * _BROAD_STEP + (length - 1) / 2
    return torch.cat([places[1:-1], places[:1], places[-1:]])


def _broad_weights(places: Tensor, length: int) -> Tensor:
    """(n, length) matrix from pixels to the smoothed values at places (n,). Weights of next to nothing are 0: numbers
    close to the smallest there are make a product several times as slow."""
    weights = torch.exp(-0.5 * ((places[:, None] - torch.arange(length)) / _BROAD_SIGMA) ** 2)
    return torch.where(weights < 1e-9, 0.0, weights) / (_BROAD_SIGMA * math.sqrt(2 * math.pi))


def _neighbours(count: int) -> Tensor:
    """(count, 3): the one before, itself and the one after, in the order of :func:`_broad_places`. The last two lack
    one, and nobody asks for theirs."""
    itself = torch.arange(count)
    before, after = itself - 1, itself + 1
    before[0], after[-3] = count - 2, count - 1
    return torch.stack([before, itself, after], 1).clamp(0, count - 1)


def _pairs(rows: Tensor, columns: Tensor) -> Tensor:
    """Of rows (h, a) and columns (w, b) around each y and each x: the pixels around each pixel, (h w, a b)."""
    return (rows[:, None, :, None] * len(columns) + columns[None, :, None, :]).flatten(2).flatten(0, 1)


def _smoothed(grid: Tensor, tables: _Tables) -> Tensor:
    """Maps (n, h, w, p) broadly smoothed: (n, rows, columns, p).

    So smooth a map is known from every fourth pixel of every fourth row, and these alone are computed.
    """
    n, h, w, pixel = grid.shape
    # bmm, because the @ of one matrix with many takes a tenth longer on a CPU.
    smooth = torch.bmm(tables.down.expand(n, -1, -1), grid.view(n, h, w * pixel))
    if pixel == 1:
        smooth = smooth.view(-1, w) @ tables.across.T
    else:
        rows = smooth.view(-1, w, pixel)
        smooth = torch.bmm(tables.across.expand(len(rows), -1, -1), rows)
    return smooth.view(n, len(tables.down), len(tables.across), pixel)


def _newton_step(values: Tensor, to_derivatives: Tensor) -> Tensor:
    """From the middle of 3x3 smoothed pixels (M, 9) to the top of the Gaussian there: (M, 2) as x, y, at most a pixel
    each; 0 where there is no top."""
    # Of logarithms so far apart at most, none of the second derivatives is beyond 28.
    derivatives = to_derivatives @ values.clamp(1e-3 * PEAK, 1e3 * PEAK).log().T
    slope, slope_turned, twice_y, twice_x, both, ceiling = torch.split(derivatives, [2, 2, 1, 1, 1, 1])
    determinant = torch.addcmul(twice_x * twice_y, both, both, value=-1)
    # So the determinant of a top is below the ceiling, which is negative where the curve is a valley.
    determinant = F.threshold(torch.minimum(determinant, ceiling), 1e-6, math.inf)
    move = torch.addcmul(both * slope_turned, derivatives[4:6], slope, value=-1) / determinant
    return move.nan_to_num(0.0).clamp(-1, 1).T  # an overflow in a map is no number here


def _as_in_memory(maps: Tensor) -> Tensor:
    """Maps (N, K, h, w) as they lie in memory, without a copy, as (n, h, w, p): p maps side by side, K of them where
    the maps are channels-last, else each by itself."""
    if maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous():
        return maps.permute(0, 2, 3, 1)
    return maps.reshape(-1, *maps.shape[2:], 1)


def _largest(grid: Tensor, part: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of maps (n, h, w, p) the largest value (n p, 1), float32, and its pixel, counted row by row, (n p,). Only as many
    first rows and columns as ``part`` says are looked at."""
    by_pooling = grid.device.type == "cpu" and grid.shape[3] > 1
    return _largest_by_pooling(grid, part) if by_pooling else _largest_by_column(grid, part)


def _largest_by_pooling(grid: Tensor, part: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """:func:`_largest` in one pass over memory. A pooling also tells where it found each value, and on a CPU it is as
    fast as memory where many numbers lie side by side: those of all maps in several columns."""
    n, h, w, pixel = grid.shape
    side = math.gcd(w, part[1], _CPU_COLUMNS)
    beside = grid.view(n, h, w // side, side * pixel).permute(0, 3, 1, 2)
    kernel = (part[0], part[1] // side)
    values, where = F.max_pool2d(beside, kernel, beside.shape[2:], return_indices=True)
    best, column = values.view(n, side, pixel).max(1, keepdim=True)
    which = column.add(where.view(n, side, pixel).gather(1, column), alpha=side)
    return best.float().view(-1, 1), which.flatten()


def _largest_by_column(grid: Tensor, part: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """:func:`_largest` by each column's largest value and the place in the best column: several times as fast as an
    argmax over all pixels."""
    w, pixel = grid.shape[2:]
    grid = grid[:, : part[0], : part[1]]
    column = grid.amax(1, keepdim=True).float().argmax(2, keepdim=True)  # (n, 1, 1, p)
    best, row = grid.gather(2, column.expand(-1, part[0], 1, pixel)).float().max(1, keepdim=True)
    return best.view(-1, 1), (row * w + column).flatten()


def _at(grid: Tensor, places: Tensor, which: Tensor, joints: Tensor) -> Tensor:
    """Values (n p, m), float32, of maps (n, h, w, p): of each those where row ``which`` (n p,) of ``places`` says."""
    n, _, _, pixel = grid.shape
    index = places.index_select(0, which).view(n, pixel, places.shape[1])
    if pixel > 1:
        index = index + joints
    return grid.flatten(1).gather(1, index.flatten(1)).view(len(which), places.shape[1]).float()
