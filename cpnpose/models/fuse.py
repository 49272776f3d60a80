"""The inference form of CPN: the same function as the training form, for a fraction of the work.

What changes, and why the result does not:

- GlobalNet's heatmap heads only serve the training loss; they are left out.
- Batch normalisation with fixed statistics is an affine map per channel and folds into the convolution before it.
- A 1x1 convolution and a bilinear upsampling commute (the weights of a bilinear sample sum to 1, so a bias passes
  through as well); the convolution runs before the upsampling, on a quarter of the pixels or fewer.
- The merging bottleneck of RefineNet reads the concatenation of four levels by two 1x1 convolutions. Both are one
  convolution with more outputs, and it splits into four over 256 channels each, run at their own level's resolution,
  upsampled and summed: the concatenation is never built.
- P2 = relu(lateral(C2)) + up(top_down(P3)) is read by that convolution alone. So its second term joins the sum at P3's
  resolution, by the product of the two weight matrices, and P2 is never built either.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from cpnpose.models.backbone import ResNetFeatures
from cpnpose.models.cpn import CPN, Bottleneck, PredictionHead
from cpnpose.models.fold import fold_layers, folded_matrix, from_matrix
from cpnpose.models.fuse_backbone import FusedMobileNetV2, FusedResNet
from cpnpose.models.fuse_conv import Activation
from cpnpose.models.fuse_upsample import sum_upsampled


@lru_cache
def cpu_chunk() -> int:
    """Crops that go through the network at once on this CPU. More would push the activations out of the cache; fewer
    make starting the operators weigh too much, above all where AMX multiplies."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return 16 if amx is not None and amx() else 8


class FusedCPN(nn.Module):
    """Inference form of a :class:`~cpnpose.models.cpn.CPN`; build it with :func:`fuse`.

    Input: normalised crops, float (N, 3, H, W), RGB. Output: RefineNet's map (N, 17, H/4, W/4), or GlobalNet's finest
    map in the fast form. Activations are channels-last inside, whatever the input's layout.
    """

    def __init__(self, model: CPN, fast: bool = False) -> None:
        super().__init__()
        self.config = model.config
        self.fast = fast
        backbone = model.backbone
        self.backbone = FusedResNet(backbone) if isinstance(backbone, ResNetFeatures) else FusedMobileNetV2(backbone)
        net = model.global_net
        self.laterals = nn.ModuleList(fold_layers(lateral) for lateral in net.laterals)
        self.top_down = nn.ModuleList(fold_layers(layer) for layer in list(net.top_down)[:2])
        if fast:
            head = net.heads[3]
            assert isinstance(head, PredictionHead)
            matrix, bias = folded_matrix(head.reduce)
            self.head = fold_layers(nn.Sequential(head.predict, head.bn))
        else:
            refine = model.refine_net
            self.cascade = nn.ModuleList(
                nn.Sequential(*map(FusedBottleneck, level.children())) for level in list(refine.cascade)[:3]
            )
            merge = refine.merge
            first, first_bias = folded_matrix(nn.Sequential(merge.conv1, merge.bn1))
            shortcut, shortcut_bias = folded_matrix(merge.shortcut)
            matrix, bias = torch.cat([first, shortcut]), torch.cat([first_bias, shortcut_bias])
            *coarse, matrix = matrix.tensor_split(4, dim=1)
            self.coarse = nn.ModuleList(from_matrix(part, None) for part in coarse)
            self.conv2 = fold_layers(nn.Sequential(merge.conv2, merge.bn2, nn.ReLU()))
            self.conv3 = fold_layers(nn.Sequential(merge.conv3, merge.bn3, nn.ReLU()))
            self.head = fold_layers(refine.predict)
        down, down_bias = folded_matrix(net.top_down[2])
        self.from_p3 = from_matrix(matrix @ down, matrix @ down_bias)
        outputs = [len(matrix)] if fast else [len(first), len(shortcut)]
        self.split = outputs[0]
        activations: tuple[Activation, ...] = ("relu", "none")
        pairs = zip(torch.split(matrix, outputs), torch.split(bias, outputs), activations, strict=False)
        self.from_c2 = nn.ModuleList(from_matrix(*pair) for pair in pairs)

    def forward(self, crops: Tensor) -> Tensor:
        if crops.device.type != "cpu" or len(crops) <= cpu_chunk():
            return self._chunk(crops)
        return torch.cat([self._chunk(part) for part in crops.tensor_split(-(-len(crops) // cpu_chunk()))])

    def with_features(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """The backbone's C5, C4, C3, C2, and what :meth:`forward` gives."""
        features = self.backbone(crops.contiguous(memory_format=torch.channels_last))
        return features, self._maps(features)

    def _chunk(self, crops: Tensor) -> Tensor:
        return self.with_features(crops)[1]

    def _maps(self, features: list[Tensor]) -> Tensor:
        c5, c4, c3, c2 = features
        p5 = self.laterals[0](c5)  # (N, width, H/32, W/32)
        l4, l3 = self.laterals[1](c4), self.laterals[2](c3)
        p4 = sum_upsampled([self.top_down[0](p5)], _size(l4), fine=l4)
        p3 = sum_upsampled([self.top_down[1](p4)], _size(l3), fine=l3)  # (N, width, H/8, W/8)
        l2 = self.laterals[3](c2)  # (N, width, H/4, W/4)
        size = _size(l2)
        if self.fast:
            return self.head(self.from_c2[0](l2, add=sum_upsampled([self.from_p3(p3)], size)))  # type: ignore[no-any-return]
        r5, r4, r3 = (block(level) for block, level in zip(self.cascade, (p5, p4, p3), strict=True))
        parts = [self.coarse[0](r5), self.coarse[1](r4), self.coarse[2](r3, add=self.from_p3(p3))]
        # the two 1x1 convolutions of the merging bottleneck: the first, and the shortcut
        first, shortcut = self.from_c2
        split = self.split
        middle = first(l2, add=sum_upsampled(parts, size, channels=slice(0, split)))
        beside = sum_upsampled(parts, size, channels=slice(split, None), fine=shortcut(l2))
        return self.head(self.conv3(self.conv2(middle), add=beside))  # type: ignore[no-any-return]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


class FusedBottleneck(nn.Module):
    """RefineNet's bottleneck with folded batch normalisation."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, Bottleneck)
        conv1, conv2, conv3 = block.conv1, block.conv2, block.conv3
        self.conv1 = fold_layers(nn.Sequential(conv1, block.bn1, nn.ReLU()))
        self.conv2 = fold_layers(nn.Sequential(conv2, block.bn2, nn.ReLU()))
        self.conv3 = fold_layers(nn.Sequential(conv3, block.bn3, nn.ReLU()))
        self.shortcut = fold_layers(block.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)), add=self.shortcut(x))  # type: ignore[no-any-return]


def fuse(model: CPN, fast: bool = False) -> FusedCPN:
    """Build the inference form of ``model``; the model itself is left as it is and shares nothing with it.

    Args:
        model: a CPN of any architecture; its running statistics are used, whatever mode it is in.
        fast: only GlobalNet's finest map, without RefineNet: quicker and less accurate.

    Returns:
        A module in eval mode on the model's device, in the model's dtype, mapping normalised crops (N, 3, H, W) to
        heatmaps (N, 17, H/4, W/4). Equal to the training form to 1e-4 (relative, float32).
    """
    with torch.no_grad():
        fused = FusedCPN(model, fast)
    parameter = next(model.parameters())
    fused = fused.to(device=parameter.device, dtype=parameter.dtype).to(memory_format=torch.channels_last)
    return fused.eval()
