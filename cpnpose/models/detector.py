"""The person detector: torchvision's Faster R-CNN on MobileNetV2 with a light pyramid, for people only.

Ren et al., NeurIPS 2015 (proposals, box head); Lin et al., CVPR 2017 (pyramid); Sandler et al., CVPR 2018 (backbone).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cpnpose.models.backbone import MobileNetV2Features, SamePadConv2d
from cpnpose.models.detector_heads import PersonHeads, PersonProposals, PyramidRoIAlign

ARCHITECTURE = "faster-rcnn-mobilenet-v2"
"""The name of this network in the metadata of weights."""
STRIDES = (8, 16, 32, 64)
"""Pixels of the input per cell of the four levels P3, P4, P5 and P6."""


@dataclass(frozen=True)
class DetectorConfig:
    """Everything that has to be known to build the network again; ``asdict`` of it goes into the weights' metadata."""

    channels: int = 96
    """Of each level of the pyramid."""
    hidden: int = 512
    """Units of the two layers of the box head."""
    anchor_sizes: tuple[tuple[float, ...], ...] = ((14.0, 22.0), (36.0, 56.0), (90.0, 142.0), (220.0, 340.0))
    """Per level: square roots of the anchors' areas in pixels of the input."""
    anchor_ratios: tuple[float, ...] = (0.8, 1.7, 3.4)
    """Height by width."""
    proposals: int = 150
    """Boxes per image that the box head looks at."""
    input_pixels: int = 480 * 640
    """About how many pixels a frame is brought to."""
    score: float = 0.5
    """Boxes below this score are no people; chosen on the validation images."""
    track_score: float | None = None
    """In a video, somebody new is followed from this score on; None is ``score``."""
    nms: float = 0.5
    """Of two boxes that overlap more than this (intersection over union) the better one stays."""

    def __post_init__(self) -> None:
        """Turn the lists of JSON into tuples."""
        object.__setattr__(self, "anchor_sizes", tuple(tuple(map(float, level)) for level in self.anchor_sizes))
        object.__setattr__(self, "anchor_ratios", tuple(map(float, self.anchor_ratios)))


class PersonPyramid(nn.Module):
    """MobileNetV2 up to its 320 channels at stride 32, and a feature pyramid on top.

    Batch normalisation is folded into the convolutions from the start: the ImageNet weights come folded, and nothing
    has to be normalised, neither in training nor at inference. The blocks up to stride 4 are never trained.

    Input (N, 3, H, W), H and W multiples of 32. Output P3, P4, P5, P6 under the names "0", "1", "2", "pool", each with
    ``channels`` channels, at strides 8, 16, 32 and 64.
    """

    _FROZEN, _STEM = 4, 5
    _TAPS = (6, 13, 17)

    def __init__(self, channels: int, backbone: MobileNetV2Features | None = None) -> None:
        super().__init__()
        blocks = list((backbone or MobileNetV2Features()).features.children())[: self._TAPS[-1] + 1]
        self.blocks = nn.ModuleList(blocks)
        _fold_batch_norm(self.blocks)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.ReLU6):
                layer.inplace = False  # in place, PyTorch takes three times as long for bfloat16 on a CPU
        self.blocks[: self._FROZEN].requires_grad_(False)
        self.fpn = FeaturePyramidNetwork([32, 96, 320], channels, LastLevelMaxPool())

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.levels(self.stem(x))

    def stem(self, x: Tensor) -> Tensor:
        """Images to (N, 32, H/8, W/8): the part whose maps are large."""
        with torch.no_grad():
            for block in self.blocks[: self._FROZEN]:
                x = block(x)  # (N, 24, H/4, W/4) at the end
        for block in self.blocks[self._FROZEN : self._STEM]:
            x = block(x)
        return x

    def levels(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The result of :meth:`stem` to the levels."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for index in range(self._STEM, len(self.blocks)):
            x = self.blocks[index](x)
            if index in self._TAPS:
                maps[str(len(maps))] = x  # (N, 32 | 96 | 320, H/8 | H/16 | H/32, ...)
        return self.fpn(maps)  # type: ignore[no-any-return]


class _FloatRPNHead(RPNHead):  # type: ignore[misc]
    """torchvision's head; works in the number format of its weights and answers in float32, as boxes need it."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, deltas = super().forward([level.to(self.cls_logits.weight.dtype) for level in x])
        return [s.float() for s in scores], [d.float() for d in deltas]


class _FloatBoxHead(nn.Module):
    """Two layers and the answer for each pooled box: logits (R, 2) of background and person, deltas (R, 8), float32."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = TwoMLPHead(inputs, hidden)
        self.predictor = FastRCNNPredictor(hidden, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.predictor(self.layers(x.to(self.predictor.cls_score.weight.dtype)))
        return logits.float(), deltas.float()


class Detector(nn.Module):
    """Faster R-CNN for people. Build it with :func:`build_detector`."""

    def __init__(self, config: DetectorConfig, backbone: MobileNetV2Features | None = None) -> None:
        super().__init__()
        self.config = config
        self.pyramid: nn.Module = PersonPyramid(config.channels, backbone)
        anchors = AnchorGenerator(config.anchor_sizes, (config.anchor_ratios,) * len(config.anchor_sizes))
        self.rpn = PersonProposals(
            anchors,
            _FloatRPNHead(config.channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=192,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 250, "testing": 200},
            post_nms_top_n={"training": 250, "testing": config.proposals},
            nms_thresh=0.7,
        )
        self.heads = PersonHeads(
            PyramidRoIAlign(STRIDES[:3], output=7, samples=2),
            _FloatBoxHead(7 * 7 * config.channels, config.hidden),
            batch_size_per_image=96,
            positive_fraction=0.33,
        )

    def forward(self, images: Tensor, targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        """Find people, or measure how far the answer is from the truth.

        Args:
            images: (N, 3, H, W), RGB in [-1, 1], H and W multiples of 32; see :func:`normalize`.
            targets: for training, per image ``boxes`` (n, 4), ``ignore`` (m, 4) (nothing is said about boxes that lie
                mostly in there) and ``doubtful`` (k, 4) (regions in which people may have no box); xyxy in pixels of
                the input, float32.

        Returns:
            With targets: the four losses by name, scalars. Without: per image boxes (n, 4) xyxy in pixels of the input
            and scores (n,) of every proposal, unsorted, before any threshold.
        """
        features = self.pyramid(images)
        height, width = images.shape[-2:]
        sizes = [(int(height), int(width))] * len(images)
        truth = list(targets) if targets is not None else None
        proposals, losses = self.rpn(ImageList(images, sizes), features, truth)
        if truth is None:
            return self.heads.find(features, proposals, (int(height), int(width)))
        return {**losses, **self.heads.losses(features, proposals, truth)}


def build_detector(config: DetectorConfig | None = None, backbone: MobileNetV2Features | None = None) -> Detector:
    """The network, in training mode, with random weights, or those of ``backbone`` (whose layers it takes over)."""
    return Detector(config or DetectorConfig(), backbone)


def normalize(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 RGB (N, H, W, 3) to (N, 3, H, W) in [-1, 1], channels last in memory. In a type of 16 bits they are the
    same numbers, rounded: there, too, a byte less 127.5 is exact."""
    return pixels.permute(0, 3, 1, 2).to(dtype).sub_(127.5).div_(127.5)


@torch.no_grad()
def _fold_batch_norm(module: nn.Module) -> None:
    """Replace each convolution and the batch normalisation behind it by one convolution with a bias, in place."""
    for child in module.children():
        _fold_batch_norm(child)
    if not isinstance(module, nn.Sequential):
        return
    for index in range(len(module) - 1):
        conv, bn = module[index], module[index + 1]
        if not (isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)):
            continue
        assert bn.running_mean is not None
        assert bn.running_var is not None
        kind = SamePadConv2d if isinstance(conv, SamePadConv2d) else nn.Conv2d
        size, stride = conv.kernel_size[0], conv.stride[0]
        folded = kind(
            conv.in_channels, conv.out_channels, size, stride, int(conv.padding[0]), groups=conv.groups, bias=True
        )
        assert folded.bias is not None
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        folded.weight.copy_(conv.weight * scale[:, None, None, None])
        folded.bias.copy_(bn.bias - bn.running_mean * scale)
        module[index], module[index + 1] = folded, nn.Identity()
