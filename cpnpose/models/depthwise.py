"""A depthwise 3x3 convolution on a graphics card, with its bias and its ReLU6 in one pass over memory.

cuDNN has depthwise kernels for some shapes only, needs a tenth of a second to choose one for each shape and each batch
size, and leaves bias and ReLU6 to two further passes. This kernel is written in Triton, which comes with PyTorch for
CUDA on Linux, is compiled once on a machine, and takes all shapes. Where it does not run, cuDNN does the work.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_PIXELS = 32
"""That one program computes, of 32 or 64 channels each."""
_MOST_VALUES = 2**31
"""Places in a map are counted in 32 bits."""


def depthwise(x: Tensor, taps: Tensor, bias: Tensor, stride: int, *, relu6: bool) -> Tensor:
    """Convolve each channel by its own 3x3 taps.

    Args:
        x: (N, C, H, W), channels last in memory.
        taps: (9, C), row by row, in the type of ``x``.
        bias: (C,).
        stride: 1, with a border of one zero around x; or 2, for even H and W, with a row of zeros below and a column on
            the right, as TensorFlow pads.
        relu6: limit the result to 0 to 6.

    Returns:
        (N, C, H / stride, W / stride), channels last in memory.
    """
    from cpnpose.models.depthwise_kernel import kernel

    n, channels, height, width = x.shape
    rows, columns = height // stride, width // stride
    shape = (n, channels, rows, columns)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    pixels = n * rows * columns
    block = 64 if channels % 64 == 0 else 32
    grid = (-(-pixels // _PIXELS), -(-channels // block))
    with torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext():
        kernel[grid](
            x, taps, bias, y, height, width, rows, columns, channels, pixels,
            STRIDE=stride, BORDER=2 - stride, RELU6=relu6, PIXELS=_PIXELS, CHANNELS=block,
        )  # fmt: skip
    return y


def takes(x: Tensor) -> bool:
    """Whether :func:`depthwise` can be called for ``x`` on its device."""
    return (
        x.device.type == "cuda"
        and 0 < x.numel() < _MOST_VALUES
        and x.is_contiguous(memory_format=torch.channels_last)
        and depthwise_works(x.dtype, x.device)
    )


@lru_cache
def depthwise_works(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether Triton is there and its kernel computes in this type on this device what PyTorch does on the CPU (cuDNN
    would have to look for kernels, which takes longer than all the rest)."""
    x = torch.linspace(-2, 2, 2 * 32 * 8 * 6).view(2, 32, 8, 6).contiguous(memory_format=torch.channels_last)
    taps, bias = torch.linspace(-1, 1, 9 * 32).view(9, 32), torch.linspace(0, 3, 32)
    try:
        with torch.inference_mode():
            there, taps_there, bias_there = (part.to(device, dtype) for part in (x, taps, bias))
            found = [depthwise(there, taps_there, bias_there, stride, relu6=True).float().cpu() for stride in (1, 2)]
            wanted = [_plain(x, taps, bias, stride) for stride in (1, 2)]
            return all(torch.allclose(a, b, rtol=0.02, atol=0.1) for a, b in zip(found, wanted, strict=True))
    except Exception:  # no Triton, no compiler for its launcher, a card that is too old: its errors are of many kinds
        return False


def _plain(x: Tensor, taps: Tensor, bias: Tensor, stride: int) -> Tensor:
    """The same by PyTorch, for a stride of 2 by every second pixel."""
    weight = taps.T.reshape(-1, 1, 3, 3)
    y = F.conv2d(x, weight, bias, padding=1, groups=len(weight)).clamp(0, 6)
    return y if stride == 1 else y[:, :, 1::2, 1::2]
