"""Bilinear upsampling with aligned corners, as the published network does everywhere."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of (N, C, h, w) to (N, C, *size) with aligned corners; the input itself where it has that size.

    On a CPU in bfloat16 (training) the gradient is made of two products of matrices, several times as fast as
    PyTorch's own backward pass and, in float32, the same numbers.
    """
    if x.shape[-2:] == torch.Size(size):
        return x
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.requires_grad:
        return _UpsampleByMatrices.apply(x, size)  # type: ignore[no-any-return]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class _UpsampleByMatrices(torch.autograd.Function):
    """PyTorch's upsampling with a backward pass of matrix products; channels-last gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.source = x.shape
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return upsample_gradient(gradient, ctx.source[-2:]), None


def upsample_gradient(gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """The gradient of :func:`upsample`'s input.

    Args:
        gradient: of its output, (N, C, H, W).
        size: (h, w) of its input.

    Returns:
        (N, C, h, w), channels-last, in the gradient's type.
    """
    count, depth, height, width = gradient.shape
    h, w = size
    lines = gradient.permute(0, 2, 3, 1).reshape(count, height, width * depth)
    down = resampling_matrix(h, height, gradient.dtype, gradient.device).T.expand(count, h, height)
    rows = torch.bmm(down, lines).view(count * h, width, depth)
    across = resampling_matrix(w, width, gradient.dtype, gradient.device).T.expand(count * h, w, width)
    return torch.bmm(across, rows).view(count, h, w, depth).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def resampling_matrix(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
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
