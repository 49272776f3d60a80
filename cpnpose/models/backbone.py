"""Feature pyramids C2..C5 from torchvision's classification networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpnpose.errors import WeightsError
from cpnpose.models.quick_start import without_compiler

with without_compiler():
    import torchvision


class ResNetFeatures(nn.Module):
    """ResNet without its classifier (He et al., CVPR 2016; torchvision's block, stride in the 3x3).

    Input (N, 3, H, W), H and W multiples of 32. Output C5, C4, C3, C2 with 2048, 1024, 512, 256 channels at
    strides 32, 16, 8, 4.
    """

    channels = (2048, 1024, 512, 256)

    def __init__(self, depth: int) -> None:
        super().__init__()
        net = {50: torchvision.models.resnet50, 101: torchvision.models.resnet101}[depth](weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def blocks(self) -> list[nn.Module]:
        """The parts in the order of the computation: the stem's two layers and the four stages."""
        return [self.conv1, self.bn1, self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, 64, H/4, W/4)
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [self.layer4(c4), c4, c3, c2]


class SamePadConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 that pads 0 on the top and left and 1 on the bottom and right.

    This is TensorFlow's "SAME" rule for even sizes; weights that were trained with it keep their accuracy only with it.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.groups > 1:
            # The same numbers by a stride of 1 and every second pixel: its backward pass is several times faster.
            every = F.conv2d(input, self.weight, self.bias, 1, 1, 1, self.groups)[:, :, 1::2, 1::2]
            return every.contiguous(memory_format=torch.channels_last)  # batch normalisation is slow on strided maps
        return F.conv2d(F.pad(input, (0, 1, 0, 1)), self.weight, self.bias, 2, 0, 1, self.groups)


def use_same_padding(module: nn.Module) -> None:
    """Replace every 3x3 convolution of stride 2 inside ``module`` by :class:`SamePadConv2d`, keeping its weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.stride == (2, 2) and child.kernel_size == (3, 3):
            conv = SamePadConv2d(
                child.in_channels, child.out_channels, 3, stride=2, padding=0, groups=child.groups, bias=False
            )
            conv.weight = child.weight
            setattr(module, name, conv)
        else:
            use_same_padding(child)


class MobileNetV2Features(nn.Module):
    """MobileNetV2 1.0 without its classifier (Sandler et al., CVPR 2018), padded as TensorFlow does.

    Input (N, 3, H, W), H and W multiples of 32. Output C5, C4, C3, C2 with 1280, 96, 32, 24 channels at
    strides 32, 16, 8, 4.
    """

    channels = (1280, 96, 32, 24)
    _taps = (3, 6, 13, 18)

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(weights=None).features
        use_same_padding(self.features)

    def blocks(self) -> list[nn.Module]:
        """The parts in the order of the computation: a convolution, 17 residual blocks, a convolution."""
        return list(self.features)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self._taps:
                maps.append(x)
        return maps[::-1]


@torch.no_grad()
def settle_batch_norm(module: nn.Module, batches: list[Tensor]) -> None:
    """Give folded batch normalisations true statistics without changing what the network computes in eval mode.

    Weights whose batch normalisation was folded into the convolutions come with identity BN layers (mean 0,
    variance 1), whose output would change as soon as training mode normalises with batch statistics. Here each BN layer
    gets the mean m and variance v that its input has on ``batches``, and the affine part that undoes them:
    weight' = weight * sqrt(v + eps), bias' = bias + weight * m.

    Args:
        module: network in which every BN layer is an identity up to weight and bias.
        batches: normalised inputs (N, 3, H, W) to measure on.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    means: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    squares: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}

    def measure(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].float()
        means[layer].append(x.mean((0, 2, 3)))
        squares[layer].append((x * x).mean((0, 2, 3)))

    was_training = module.training
    module.eval()
    handles = [layer.register_forward_pre_hook(measure) for layer in layers]
    for batch in batches:
        module(batch)
    for handle in handles:
        handle.remove()
    for layer in layers:
        mean = torch.stack(means[layer]).mean(0)
        variance = (torch.stack(squares[layer]).mean(0) - mean * mean).clamp_min(1e-4)
        layer.bias.add_(layer.weight * mean)
        layer.weight.mul_((variance + layer.eps).sqrt())
        layer.running_mean.copy_(mean)  # type: ignore[union-attr]
        layer.running_var.copy_(variance)  # type: ignore[union-attr]
    module.train(was_training)


def load_imagenet_backbone(backbone: MobileNetV2Features, path: Path) -> None:
    """Fill the backbone from an ``.npz`` with torchvision's key names (``features.*``; a classifier is ignored).

    Raises:
        WeightsError: the file is missing, damaged, or does not fit; the message names the entries.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            state = {
                k: torch.from_numpy(np.asarray(arrays[k])).float() for k in arrays.files if k.startswith("features.")
            }
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as an .npz of backbone weights ({error})") from error
    wanted = backbone.state_dict()
    missing = sorted(k for k in wanted if k not in state and not k.endswith("num_batches_tracked"))
    unknown = sorted(set(state) - set(wanted))
    shapes = sorted(k for k in wanted if k in state and state[k].shape != wanted[k].shape)
    if missing or unknown or shapes:
        raise WeightsError(
            f"{path}: does not fit MobileNetV2; missing {missing[:4]}, unknown {unknown[:4]}, "
            f"of another shape {shapes[:4]}"
        )
    backbone.load_state_dict(state, strict=False)
