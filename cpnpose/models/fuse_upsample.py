"""Sums of feature maps of several resolutions, upsampled bilinearly with aligned corners.

Bilinear upsampling is linear and separable: along each axis it is the product with a small matrix that has two
entries per row. As products of matrices it runs in the processor's fastest units, several levels are upsampled and
summed by one product (their matrices side by side), and the sum is rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cpnpose.models.upsample import resampling_matrix


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
        across = resampling_matrix(w, width, fine.dtype, fine.device).expand(count * h, width, w)
        rows.append(torch.bmm(across, line).view(count, h, width * depth))
        matrices.append(resampling_matrix(h, height, fine.dtype, fine.device))
    down = torch.cat(matrices, dim=1).expand(count, -1, -1)  # (N, H, sum of h)
    stacked = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)  # (N, sum of h, W C)
    fine.permute(0, 2, 3, 1).view(count, height, width * depth).baddbmm_(down, stacked)
    return fine
