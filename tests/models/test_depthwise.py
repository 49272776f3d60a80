from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from cpnpose.models.backbone import SamePadConv2d
from cpnpose.models.depthwise import depthwise_works, takes
from cpnpose.models.fold import fold

BY_INTERPRETER = """
import torch
from cpnpose.models import fuse_conv
from cpnpose.models.backbone import SamePadConv2d
from cpnpose.models.depthwise import depthwise_works
from cpnpose.models.fold import fold

assert depthwise_works(torch.float32, torch.device("cpu"))
fuse_conv.takes = lambda x: True
torch.manual_seed(0)
for conv, activation in (
    (torch.nn.Conv2d(32, 32, 3, padding=1, groups=32), "relu6"),
    (SamePadConv2d(144, 144, 3, stride=2, groups=144), "relu6"),
    (SamePadConv2d(64, 64, 3, stride=2, groups=64), "none"),
):
    x = 4 * torch.randn(2, conv.in_channels, 10, 6).contiguous(memory_format=torch.channels_last)
    fused = fold(conv, activation=activation)
    with torch.inference_mode():
        wanted = fuse_conv._activate(conv(x), activation)
        found = fused._depthwise(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_kernel_computes_what_the_convolution_does() -> None:
    """On the CPU, by Triton's interpreter, which has to be chosen before Triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", BY_INTERPRETER], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "equal", run.stderr


def test_without_the_kernel_every_second_pixel_is_taken() -> None:
    torch.manual_seed(0)
    for conv in (nn.Conv2d(32, 32, 3, padding=1, groups=32), SamePadConv2d(96, 96, 3, stride=2, groups=96)):
        x = 4 * torch.randn(2, conv.in_channels, 10, 6).contiguous(memory_format=torch.channels_last)
        fused = fold(conv, activation="relu6")
        assert fused._is_depthwise()
        with torch.inference_mode():
            found = fused._depthwise(x)
            torch.testing.assert_close(found, conv(x).clamp(0, 6), rtol=1e-4, atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_taps_follow_the_weights_to_another_type() -> None:
    fused = fold(nn.Conv2d(32, 32, 3, padding=1, groups=32))
    x = torch.randn(1, 32, 4, 4)
    with torch.inference_mode():
        fused._depthwise(x)
        assert fused.to(torch.float64)._depthwise(x.double()).dtype == torch.float64


def test_other_convolutions_are_not_taken_for_depthwise_ones() -> None:
    for conv in (nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=4),
                 nn.Conv2d(32, 64, 3, padding=1, groups=32), nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32),
                 nn.Conv2d(32, 32, 5, padding=2, groups=32)):  # fmt: skip
        assert not fold(conv)._is_depthwise()


def test_the_kernel_is_for_graphics_cards() -> None:
    assert not takes(torch.zeros(1, 32, 4, 4))
    assert not depthwise_works(torch.bfloat16, torch.device("meta"))
