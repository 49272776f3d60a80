"""Convolutions as products of matrices, for training on a CPU: oneDNN's backward pass is slow where maps are small.

Measured for one core with AMX in bfloat16, forward and backward, against the same product of matrices: a 1x1
convolution of 2048 to 512 channels on 4x3 pixels takes 3.5 times as long, one of 1024 to 2048 with stride 2 six times,
a 3x3 of 512 to 512 3.5 times; those on large maps 1.0 to 1.4 times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MANY_CHANNELS = 512
"""From here on gathering the pixels of a strided or a 3x3 convolution costs less than its product gains."""


def by_products(x: Tensor, training: bool) -> bool:
    """Whether the layers of this page replace the plain ones: where bfloat16 is trained on a CPU."""
    return training and x.device.type == "cpu" and x.dtype == torch.bfloat16


class ProductConv2d(nn.Conv2d):
    """A convolution without bias, 1x1 or 3x3 with padding, that multiplies matrices while it is trained in bfloat16.

    The same numbers up to rounding; in every other case it is a plain convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not by_products(input, self.training):
            return super().forward(input)
        rows, stride = input.permute(0, 2, 3, 1), self.stride[0]  # (N, h, w, C)
        if self.kernel_size[0] == 1:
            rows = rows[:, ::stride, ::stride] if stride > 1 else rows
        else:
            rows = _neighbourhoods(rows, stride)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, weight).permute(0, 3, 1, 2)  # channels_last


def _neighbourhoods(rows: Tensor, stride: int) -> Tensor:
    """(N, h, w, C) to (N, h', w', 9 C): the 3x3 pixels around every output pixel, row by row, 0 outside."""
    height, width = ((side - 1) // stride * stride + 1 for side in rows.shape[1:3])
    padded = F.pad(rows, (0, 0, 1, 1, 1, 1))
    shifted = [padded[:, y : y + height : stride, x : x + width : stride] for y in range(3) for x in range(3)]
    return torch.cat(shifted, dim=3)


def use_products(module: nn.Module) -> None:
    """Turn the convolutions inside ``module`` that gain by it into :class:`ProductConv2d`, in place, names kept."""
    for conv in module.modules():
        if type(conv) is nn.Conv2d and _gains(conv):
            conv.__class__ = ProductConv2d


def _gains(conv: nn.Conv2d) -> bool:
    if conv.bias is not None or conv.groups > 1 or conv.dilation != (1, 1):
        return False
    plain = conv.kernel_size == (1, 1) and conv.stride == (1, 1)
    shaped = (conv.kernel_size, conv.padding) in (((1, 1), (0, 0)), ((3, 3), (1, 1)))
    return plain or (shaped and conv.stride[0] == conv.stride[1] and conv.in_channels >= _MANY_CHANNELS)
