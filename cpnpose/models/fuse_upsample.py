"""Sums of feature maps of several resolutions, upsampled bilinearly with aligned corners.

Bilinear upsampling is linear and separable: along each axis it is the product with a small matrix that has two
entries per row. As products of matrices it runs in the processor's fastest units, several levels are upsampled and
summed by one product (their matrices side by side), and the sum is rounded once.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def sum_upsampled(fine: Tensor, parts: list[Tensor], channels: slice = slice(None)) -> Tensor:
    """``fine + sum(up(part[:, channels]))``, in place of ``fine`` where its layout allows.

    Args:
        fine: (N, C, H, W), channels-last.
        parts: maps (N, C', h, w) of any sizes, channels-last.
        channels: which of the C' channels of each part to take; C of them.
    """
    fine = fine.contiguous(memory_format=torch.channels_last)
    count, depth, height, width = fine.shape
    if count == 0:
        return fine
    rows, matrices = [], []
    for part in parts:
        h, w = part.shape[-2:]
        line = part.permute(0, 2, 3, 1)[..., channels].reshape(count * h, w, depth)
        across = _matrix(w, width, fine.dtype, fine.device).expand(count * h, width, w)
        rows.append(torch.bmm(across, line).view(count, h, width * depth))
        matrices.append(_matrix(h, height, fine.dtype, fine.device))
    down = torch.cat(matrices, dim=1).expand(count, -1, -1)  # (N, H, sum of h)
    stacked = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)  # (N, sum of h, W C)
    fine.permute(0, 2, 3, 1).view(count, height, width * depth).baddbmm_(down, stacked)
    return fine


@lru_cache(maxsize=64)
def _matrix(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The (target, source) matrix that resamples a line of ``source`` values to ``target``, corners aligned.

    The larger weight of each row is rounded to ``dtype`` and the other is what is missing to 1, which is then exact:
    a constant stays that constant in every type.
    """
    position = torch.arange(target, dtype=torch.float64) * ((source - 1) / max(target - 1, 1))
    left = position.floor().long().clamp(max=max(source - 2, 0))
    share = position - left
    larger = torch.maximum(share, 1 - share).to(dtype).double()
    share = torch.where(share > 0.5, larger, 1 - larger)
    matrix = torch.zeros(target, source, dtype=torch.float64)
    line = torch.arange(target)
    matrix[line, left] = 1 - share
    matrix[line, (left + 1).clamp(max=source - 1)] += share
    return matrix.to(device=device, dtype=dtype)
