"""Inference forms of networks made of torchvision's blocks: activations and sums joined to the convolutions."""

from __future__ import annotations

from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual

from cpnpose.models.fold import fold
from cpnpose.models.fuse_backbone import FusedInvertedResidual
from cpnpose.models.fuse_conv import Activation, FusedConv


def use_fused_convolutions(module: nn.Module) -> None:
    """Replace every convolution inside ``module``, in place, by a :class:`FusedConv` that computes the same.

    In a sequence, a batch normalisation (with its running statistics) and a ReLU or ReLU6 that follow the convolution
    become part of it. Such a module can no longer be trained.
    """
    for name, child in module.named_children():
        if isinstance(child, InvertedResidual):
            setattr(module, name, FusedInvertedResidual(child))
        elif isinstance(child, nn.Sequential):
            _fuse_sequence(child)
        elif isinstance(child, nn.Conv2d) and not isinstance(child, FusedConv):
            setattr(module, name, fold(child))
        else:
            use_fused_convolutions(child)


def _fuse_sequence(layers: nn.Sequential) -> None:
    """Fuse the runs of convolution, normalisation and activation of a sequence; what they leave empty does nothing."""
    children = list(layers.children())
    for index, conv in enumerate(children):
        if not isinstance(conv, nn.Conv2d) or isinstance(conv, FusedConv):
            continue
        bn: nn.BatchNorm2d | None = None
        activation: Activation = "none"
        end = index + 1
        while end < len(children) and activation == "none":
            follower = children[end]
            if isinstance(follower, nn.BatchNorm2d) and bn is None:
                bn = follower
            elif isinstance(follower, nn.ReLU | nn.ReLU6):
                activation = "relu6" if isinstance(follower, nn.ReLU6) else "relu"
            elif not isinstance(follower, nn.Identity):
                break
            end += 1
        layers[index] = fold(conv, bn, activation)
        for place in range(index + 1, end):
            layers[place] = nn.Identity()
    use_fused_convolutions(layers)
