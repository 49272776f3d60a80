"""Convolutions with the batch normalisation and the activation behind them as one :class:`FusedConv`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpnpose.models.backbone import SamePadConv2d
from cpnpose.models.fuse_conv import Activation, FusedConv


def folded_weights(conv: nn.Conv2d, bn: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight (O, I/groups, k, k) and bias (O,) of ``bn(conv(x))`` with running statistics, both float64 and on the CPU:
    MPS has no float64."""
    weight = _exact(conv.weight)
    bias = weight.new_zeros(len(weight)) if conv.bias is None else _exact(conv.bias)
    if bn is None:
        return weight, bias
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = _exact(bn.weight) / (_exact(bn.running_var) + bn.eps).sqrt()
    bias = _exact(bn.bias) + (bias - _exact(bn.running_mean)) * scale
    return weight * scale[:, None, None, None], bias


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def from_matrix(matrix: Tensor, bias: Tensor | None, activation: Activation = "none") -> FusedConv:
    """The 1x1 convolution with the matrix (O, I) and the bias (O,), zero where None."""
    conv = FusedConv(matrix.shape[1], matrix.shape[0], activation=activation)
    return _filled(conv, matrix[:, :, None, None], matrix.new_zeros(len(matrix)) if bias is None else bias)


def fold(conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, activation: Activation = "none") -> FusedConv:
    """One convolution for ``activation(bn(conv(x)))``, in the convolution's type and on its device.

    The stride-2 convolutions padded as TensorFlow does (nothing on the top and left) become 4x4 convolutions with a
    first row and column of zeros and a padding of 1: the same sums, without a padded copy of the input.
    """
    weight, bias = folded_weights(conv, bn)
    padding = conv.padding[0]
    assert isinstance(padding, int)
    if isinstance(conv, SamePadConv2d):
        weight, padding = F.pad(weight, (1, 0, 1, 0)), 1
    fused = FusedConv(
        conv.in_channels,
        conv.out_channels,
        weight.shape[-1],
        stride=conv.stride[0],
        padding=padding,
        groups=conv.groups,
        activation=activation,
    )
    return _filled(fused.to(conv.weight.device, conv.weight.dtype), weight, bias)


def fold_layers(layers: nn.Module) -> FusedConv:
    """One convolution for a sequence of convolution, batch normalisation and, if there is one, ReLU or ReLU6."""
    conv, bn, *rest = layers.children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d | nn.Identity)
    activation: Activation = "none"
    if rest:
        activation = "relu6" if isinstance(rest[0], nn.ReLU6) else "relu"
    return fold(conv, bn if isinstance(bn, nn.BatchNorm2d) else None, activation)


def folded_matrix(layers: nn.Module) -> tuple[Tensor, Tensor]:
    """Matrix (O, I) and bias (O,), both float64 on the CPU, of a sequence that starts with a 1x1 convolution and
    its BN."""
    conv, bn, *_ = layers.children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    weight, bias = folded_weights(conv, bn)
    return weight[:, :, 0, 0], bias


def _filled(conv: FusedConv, weight: Tensor, bias: Tensor) -> FusedConv:
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weight.to(conv.weight.dtype))
        conv.bias.copy_(bias.to(conv.bias.dtype))
    return conv
