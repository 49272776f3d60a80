"""Inference forms of the backbones: batch normalisation folded, sums and activations joined to the convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpnpose.models.backbone import MobileNetV2Features, ResNetFeatures
from cpnpose.models.cpu_parts import in_parts
from cpnpose.models.fold import fold, fold_layers


class FusedResidual(nn.Module):
    """torchvision's ResNet bottleneck."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = fold(block.conv1, block.bn1, "relu"), fold(block.conv2, block.bn2, "relu")
        self.conv3 = fold(block.conv3, block.bn3, "relu")
        self.shortcut = None if block.downsample is None else fold_layers(block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        return self.conv3(self.conv2(self.conv1(x)), add=identity)  # type: ignore[no-any-return]


class FusedResNet(nn.Module):
    """:class:`~cpnpose.models.backbone.ResNetFeatures` for inference: crops (N, 3, H, W) to C5, C4, C3, C2."""

    def __init__(self, net: ResNetFeatures) -> None:
        super().__init__()
        self.stem = fold(net.conv1, net.bn1, "relu")
        stages = (net.layer1, net.layer2, net.layer3, net.layer4)
        self.stages = nn.ModuleList(nn.Sequential(*map(FusedResidual, stage)) for stage in stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = _max_pool(self.stem(x))  # (N, 64, H/4, W/4)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[::-1]


def _max_pool(x: Tensor) -> Tensor:
    """3x3, stride 2, padding 1, of values that are not negative (N, C, H, W), H and W even.

    On the CPU in two passes over whole rows and columns, and on the bits as integers, whose order is the same: several
    times faster than PyTorch's own for channels-last reduced precision.
    """
    integer = {torch.bfloat16: torch.int16, torch.float32: torch.int32}.get(x.dtype)
    if x.device.type != "cpu" or integer is None:
        return F.max_pool2d(x, 3, stride=2, padding=1)
    bits = x.view(integer)
    rows = torch.maximum(bits[:, :, 0::2], bits[:, :, 1::2])  # rows 2i and 2i + 1
    above = rows[:, :, 1:]
    torch.maximum(above, bits[:, :, 1:-1:2], out=above)  # and 2i - 1
    columns = torch.maximum(rows[..., 0::2], rows[..., 1::2])
    left = columns[..., 1:]
    torch.maximum(left, rows[..., 1:-1:2], out=left)
    return columns.view(x.dtype)


class FusedInvertedResidual(nn.Module):
    """torchvision's inverted residual block of MobileNetV2."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        *hidden, conv, bn = block.conv
        self.layers = nn.Sequential(*map(fold_layers, hidden))
        self.project = fold_layers(nn.Sequential(conv, bn))
        self.residual = block.use_res_connect

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.layers(x), add=x if self.residual else None)  # type: ignore[no-any-return]


class FusedMobileNetV2(nn.Module):
    """:class:`~cpnpose.models.backbone.MobileNetV2Features` for inference: (N, 3, H, W) to C5, C4, C3, C2."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        assert isinstance(net, MobileNetV2Features)
        first, *blocks, last = net.features.children()
        fused = [fold_layers(first), *map(FusedInvertedResidual, blocks), fold_layers(last)]
        c2, *taps = net._taps
        self.stem, self.blocks = nn.Sequential(*fused[: c2 + 1]), nn.ModuleList(fused[c2 + 1 :])
        self.taps = [tap - c2 - 1 for tap in taps]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = in_parts(self.stem, x)
        maps = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(x)
        return maps[::-1]
