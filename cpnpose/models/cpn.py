"""The Cascaded Pyramid Network: a backbone, GlobalNet and RefineNet.

Source: Chen et al., "Cascaded Pyramid Network for Multi-Person Pose Estimation", CVPR 2018 (arXiv 1711.07319), sections
3.2.1 (GlobalNet) and 3.2.2 (RefineNet), in the form of its public PyTorch implementation.

Feature order is deepest first everywhere: index 0 is C5 (stride 32), index 3 is C2 (stride 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpnpose.models.backbone import MobileNetV2Features, ResNetFeatures
from cpnpose.models.product_conv import by_products
from cpnpose.models.upsample import upsample
from cpnpose.pose.keypoints import NUM_KEYPOINTS

Architecture = Literal["cpn50", "cpn101", "cpn-light"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
STRIDE = 4
"""Input pixels per heatmap pixel."""


class CPNMaps(NamedTuple):
    """What the network predicts; all maps (N, 17, H/4, W/4), a keypoint's peak is about 255."""

    global_maps: list[Tensor]
    """GlobalNet's four maps, deepest level first."""
    refined: Tensor
    """RefineNet's map."""
    features: Sequence[Tensor] = ()
    """The backbone's C5, C4, C3, C2."""


@dataclass(frozen=True)
class CPNConfig:
    """Shape of a CPN."""

    architecture: Architecture = "cpn50"
    input_size: tuple[int, int] = (256, 192)
    """(height, width) of the crops, multiples of 32."""

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(height, width) of the heatmaps."""
        return self.input_size[0] // STRIDE, self.input_size[1] // STRIDE

    @property
    def width(self) -> int:
        """Channels of GlobalNet and RefineNet."""
        return 128 if self.architecture == "cpn-light" else 256


def conv_bn(inputs: int, outputs: int, kernel: int = 1) -> list[nn.Module]:
    """A convolution without bias that keeps the size, and its batch normalisation."""
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


class PredictionHead(nn.Module):
    """GlobalNet's heatmaps of one level: 1x1, BN, ReLU, 3x3 to 17, upsampling, BN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(*conv_bn(width, width), nn.ReLU(inplace=True))
        self.predict = nn.Conv2d(width, NUM_KEYPOINTS, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(NUM_KEYPOINTS)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.bn(upsample(_by_channel(self.predict(self.reduce(x)), self.training), size))  # type: ignore[no-any-return]


class GlobalNet(nn.Module):
    """A feature pyramid: lateral 1x1 convolutions and a top-down path, with a heatmap head on each level.

    Args:
        channels: channels of C5, C4, C3, C2.
        width: channels of the pyramid.
    """

    def __init__(self, channels: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Sequential(*conv_bn(c, width), nn.ReLU(inplace=True)) for c in channels)
        self.top_down = nn.ModuleList(nn.Sequential(*conv_bn(width, width)) for _ in range(3))
        self.heads = nn.ModuleList(PredictionHead(width) for _ in range(4))

    def pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """C5..C2 to the summed maps P5..P2, each (N, width, h, w) at its level's size."""
        levels: list[Tensor] = []
        for index, (lateral, feature) in enumerate(zip(self.laterals, features, strict=True)):
            level = lateral(feature)
            if index > 0:
                level = level + self.top_down[index - 1](upsample(levels[-1], _size(level)))
            levels.append(level)
        return levels

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """C5..C2 to (P5..P2, four heatmaps at the size of C2)."""
        levels = self.pyramid(features)
        size = _size(levels[-1])
        return levels, [head(level, size) for head, level in zip(self.heads, levels, strict=True)]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with BN, beside a shortcut that is always projected by 1x1 and BN."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, middle)
        self.conv2, self.bn2 = conv_bn(middle, middle, 3)
        self.conv3, self.bn3 = conv_bn(middle, outputs)
        self.shortcut = nn.Sequential(*conv_bn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.conv1(x), self.shortcut(x))

    def finish(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """All that follows the first convolution and the shortcut."""
        y = F.relu(self.bn1(x), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + shortcut, inplace=True)


class RefineNet(nn.Module):
    """3, 2, 1, 0 bottlenecks on P5..P2, upsampled, concatenated, and merged by one more bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cascade = nn.ModuleList(
            nn.Sequential(*(Bottleneck(width, width // 2, width) for _ in range(3 - level))) for level in range(4)
        )
        self.merge = Bottleneck(4 * width, width // 2, width)
        self.predict = nn.Sequential(*conv_bn(width, NUM_KEYPOINTS, 3))

    def forward(self, levels: list[Tensor]) -> Tensor:
        size = _size(levels[-1])
        refined = [block(level) for block, level in zip(self.cascade, levels, strict=True)]
        if by_products(levels[0], self.training):
            merged = self._merge_by_level(refined, size)
        else:
            merged = self.merge(torch.cat([upsample(level, size) for level in refined], dim=1))
        convolution, normalisation = self.predict
        return normalisation(_by_channel(convolution(merged), self.training))  # type: ignore[no-any-return]

    def _merge_by_level(self, refined: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The same as the last bottleneck on the concatenation, by 1x1 convolutions on each level before upsampling."""

        def merged(conv: nn.Module) -> Tensor:
            assert isinstance(conv, nn.Conv2d)
            parts = conv.weight.flatten(1).chunk(len(refined), dim=1)
            products = [F.linear(x.permute(0, 2, 3, 1), w) for x, w in zip(refined, parts, strict=True)]
            first, *others = [upsample(y.permute(0, 3, 1, 2), size) for y in products]
            for other in others:
                first = first + other
            return first

        convolution, normalisation = self.merge.shortcut
        return self.merge.finish(merged(self.merge.conv1), normalisation(merged(convolution)))


class CPN(nn.Module):
    """The whole network in its training form.

    Input: normalised crops, float (N, 3, H, W), RGB. Output: :class:`CPNMaps`.
    """

    def __init__(self, config: CPNConfig) -> None:
        super().__init__()
        self.config = config
        if config.architecture == "cpn-light":
            self.backbone: nn.Module = MobileNetV2Features()
            channels = MobileNetV2Features.channels
        else:
            self.backbone = ResNetFeatures(101 if config.architecture == "cpn101" else 50)
            channels = ResNetFeatures.channels
        self.global_net = GlobalNet(channels, config.width)
        self.refine_net = RefineNet(config.width)

    def forward(self, crops: Tensor) -> CPNMaps:
        features = self.backbone(crops)
        levels, global_maps = self.global_net(features)
        return CPNMaps(global_maps, self.refine_net(levels), features)


def _by_channel(maps: Tensor, training: bool) -> Tensor:
    """Heatmaps channel by channel in memory where they are trained on a CPU: interleaved, 17 channels fill no vector,
    and upsampling, normalisation and loss take twice as long."""
    return maps.contiguous() if by_products(maps, training) else maps


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
