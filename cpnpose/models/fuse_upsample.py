"""Sums of feature maps of several resolutions, upsampled bilinearly with aligned corners.

Bilinear upsampling is linear and separable: along each axis it is the product with a small matrix that has two
entries per row. As products of matrices it runs in the processor's fastest units, several levels are upsampled and
summed by one product (their matrices side by side), and the sum is rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cpnpose.models.upsample import resampling_matrix


def sum_upsampled(
    parts: list[Tensor], size: tuple[int, int], *, channels: slice = slice(None), fine: Tensor | None = None
) -> Tensor:
    """``sum(up(part[:, channels]))`` at ``size`` (H, W), plus ``fine`` if given, in whose place it then stands where
    its layout allows.

    Args:
        parts: maps (N, C', h, w) of any sizes, channels-last.
        size: (H, W) of the result.
        channels: which of the C' channels of each part to take; C of them.
        fine: (N, C, H, W), channels-last.

    Returns:
        (N, C, H, W), channels-last.
    """
    count, (height, width) = len(parts[0]), size
    depth = len(range(*channels.indices(parts[0].shape[1])))
    rows, matrices = [], []
    for part in parts:
        h, w = part.shape[-2:]
        line = part.permute(0, 2, 3, 1)[..., channels].reshape(count * h, w, depth)
        across = resampling_matrix(w, width, part.dtype, part.device).expand(count * h, width, w)
        rows.append(torch.bmm(across, line).view(count, h, width * depth))
        matrices.append(resampling_matrix(h, height, part.dtype, part.device))
    down = torch.cat(matrices, dim=1).expand(count, -1, -1)  # (N, H, sum of h)
    stacked = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)  # (N, sum of h, W C)
    if fine is None:
        total = torch.bmm(down, stacked)
    else:
        fine = fine.contiguous(memory_format=torch.channels_last)
        total = fine.permute(0, 2, 3, 1).view(count, height, width * depth).baddbmm_(down, stacked)
    return total.view(count, height, width, depth).permute(0, 3, 1, 2)
