"""The kernel of ``depthwise.py``. Needs Triton, so it is imported only where a graphics card is used.

Triton reads the parameters' annotations, some of its versions as types only, so they are not postponed here.
"""

from typing import Any

import triton
from triton import language as tl

_jit: Any = triton.jit(do_not_specialize=["height", "width", "rows", "columns", "pixels"])


@_jit  # type: ignore[untyped-decorator]
def kernel(  # type: ignore[no-untyped-def]
    x, taps, bias, y, height, width, rows, columns, channels, pixels,
    STRIDE: tl.constexpr, BORDER: tl.constexpr, RELU6: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Some output pixels of some channels; ``pixels`` counts those of all images."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_pixel, is_channel = pixel < pixels, channel < channels
    column, row, image = pixel % columns, (pixel // columns) % rows, pixel // (columns * rows)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    total += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            from_row, from_column = row * STRIDE + i - BORDER, column * STRIDE + j - BORDER
            inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width) & is_pixel
            place = ((image * height + from_row) * width + from_column) * channels
            mask = inside[:, None] & is_channel[None, :]
            value = tl.load(x + place[:, None] + channel[None, :], mask=mask, other=0.0)
            tap = tl.load(taps + (i * 3 + j) * channels + channel, mask=is_channel, other=0.0)
            total += value.to(tl.float32) * tap.to(tl.float32)[None, :]
    if RELU6:
        total = tl.minimum(tl.maximum(total, 0.0), 6.0)
    mask = is_pixel[:, None] & is_channel[None, :]
    tl.store(y + pixel[:, None] * channels + channel[None, :], total.to(y.dtype.element_ty), mask=mask)
