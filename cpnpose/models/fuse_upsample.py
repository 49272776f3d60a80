"""Sums of feature maps of several resolutions, upsampled bilinearly with aligned corners."""

from __future__ import annotations

from torch import Tensor

from cpnpose.models.cpn import upsample


def add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """``fine + up(coarse)``, in place of ``fine``. Shapes (N, C, h, w) and (N, C, h', w')."""
    return fine.add_(upsample(coarse, (fine.shape[-2], fine.shape[-1])))


def sum_upsampled(fine: Tensor, parts: list[Tensor]) -> Tensor:
    """``fine + sum(up(part))``, in place of ``fine`` (N, C, h, w)."""
    for part in parts:
        add_upsampled(fine, part)
    return fine
