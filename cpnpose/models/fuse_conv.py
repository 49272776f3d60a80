"""A convolution with everything that may follow it at inference: folded batch normalisation, a sum, a ReLU."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cpnpose.models.backbone import SamePadConv2d

Activation = Literal["none", "relu", "relu6"]


class FusedConv(nn.Conv2d):
    """``activation(conv(x) + add)`` with a bias, for inference only."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: Activation = "none",
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=True)
        self.activation = activation
        self.requires_grad_(False)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Convolve x (N, C, h, w), add ``add`` (N, O, h', w') if given, and apply the activation."""
        y = self._conv_forward(x, self.weight, self.bias)
        if add is not None:
            y = y.add_(add)
        if self.activation == "relu":
            y = y.relu_()
        elif self.activation == "relu6":
            y = y.clamp_(0, 6)
        return y


def folded_weights(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (O, I/groups, k, k) and bias (O,) of ``bn(conv(x))`` with running statistics, both float64."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.detach().double() - bn.running_mean.double() * scale
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double() * scale
    return conv.weight.detach().double() * scale[:, None, None, None], bias


def folded_matrix(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Matrix (O, I) and bias (O,) of a 1x1 convolution and its batch normalisation, both float64."""
    weight, bias = folded_weights(conv, bn)
    return weight[:, :, 0, 0], bias


def from_matrix(matrix: Tensor, bias: Tensor | None, activation: Activation = "none") -> FusedConv:
    """The 1x1 convolution with the matrix (O, I) and the bias (O,), zero where None."""
    conv = FusedConv(matrix.shape[1], matrix.shape[0], activation=activation)
    return _filled(conv, matrix[:, :, None, None], matrix.new_zeros(len(matrix)) if bias is None else bias)


def fold(conv: nn.Conv2d, bn: nn.BatchNorm2d, activation: Activation = "none") -> FusedConv:
    """One convolution for ``activation(bn(conv(x)))``.

    The stride-2 convolutions padded as TensorFlow does (nothing on the top and left) become 4x4 convolutions with a
    first row and column of zeros and a padding of 1: the same sums, without a padded copy of the input.
    """
    weight, bias = folded_weights(conv, bn)
    padding = conv.padding[0]
    assert isinstance(padding, int)
    if isinstance(conv, SamePadConv2d):
        weight, padding = nn.functional.pad(weight, (1, 0, 1, 0)), 1
    fused = FusedConv(
        conv.in_channels,
        conv.out_channels,
        weight.shape[-1],
        stride=conv.stride[0],
        padding=padding,
        groups=conv.groups,
        activation=activation,
    )
    return _filled(fused, weight, bias)


def fold_sequential(layers: nn.Module) -> FusedConv:
    """One convolution for a sequence of convolution, batch normalisation and, if there is one, ReLU or ReLU6."""
    conv, bn, *rest = layers.children()
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    activation: Activation = "none"
    if rest:
        activation = "relu6" if isinstance(rest[0], nn.ReLU6) else "relu"
    return fold(conv, bn, activation)


def _filled(conv: FusedConv, weight: Tensor, bias: Tensor) -> FusedConv:
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    return conv
