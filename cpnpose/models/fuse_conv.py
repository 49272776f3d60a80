"""A convolution with everything that may follow it at inference: folded batch normalisation, a sum, a ReLU.

On the CPU the whole of it is one oneDNN primitive with its weights reordered once, through operators of PyTorch that
its own compiler uses. On CUDA a convolution and its ReLU, with the sum between them, are one call of cuDNN. These
operators are private, so they are tried once and public operators take their place where they fail.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpnpose.models.depthwise import depthwise, takes

Activation = Literal["none", "relu", "relu6"]
_ONEDNN_ACTIVATION: dict[Activation, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}


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
        self.activation: Activation = activation
        self.requires_grad_(False)
        self._packed: dict[bool, Tensor] = {}  # for a single map, and for several
        self._taps: Tensor | None = None

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Convolve x (N, C, h, w), add ``add`` (N, O, h', w') if given, and apply the activation.

        ``add`` may be overwritten by the result: give it a map that nothing else reads.
        """
        if x.device.type == "cpu" and len(x) > 0 and not x.requires_grad and onednn_works(x.dtype):
            return self._onednn(x, add)
        if self._is_one_cudnn_call(x, add) and cudnn_fuses(x.dtype, x.device):
            return self._cudnn(x, add)
        if x.device.type == "cuda" and add is None and self._is_depthwise():
            return self._depthwise(x)
        y: Tensor = self._conv_forward(x, self.weight, self.bias)
        if add is not None:
            y = y.add_(add)
        return _activate(y, self.activation)

    def _onednn(self, x: Tensor, add: Tensor | None) -> Tensor:
        alone = len(x) == 1
        if alone not in self._packed:
            self._packed[alone] = _pack(self, x)
        packed = self._packed[alone]
        shape = (self.padding, self.stride, self.dilation, self.groups)
        name, numbers = _ONEDNN_ACTIVATION[self.activation]
        if add is None:
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, packed, self.bias, *shape, name, numbers, "")
            return y
        add = add.contiguous(memory_format=torch.channels_last)
        relu = "relu" if self.activation == "relu" else None  # the only one that oneDNN takes after a sum
        y = torch.ops.mkldnn._convolution_pointwise_.binary(
            add, x, packed, self.bias, *shape, "add", 1.0, relu, [], None
        )
        return y.clamp_(0, 6) if self.activation == "relu6" else y

    def _is_one_cudnn_call(self, x: Tensor, add: Tensor | None) -> bool:
        """Whether this is what cuDNN has an operator for: a ReLU at the end, and no groups."""
        rectified = self.activation == "relu" or (self.activation == "relu6" and add is None)
        return rectified and self.groups == 1 and len(x) > 0 and not x.requires_grad and x.dtype == self.weight.dtype

    def _cudnn(self, x: Tensor, add: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)
        shape = (self.stride, self.padding, self.dilation, self.groups)
        if add is not None:
            add = add.contiguous(memory_format=torch.channels_last)
            return torch.cudnn_convolution_add_relu(x, self.weight, add, 1.0, self.bias, *shape)
        y = torch.cudnn_convolution_relu(x, self.weight, self.bias, *shape)
        return y.clamp_max_(6) if self.activation == "relu6" else y

    def _is_depthwise(self) -> bool:
        """Whether each channel is convolved by 3x3 taps, as MobileNets do, with a stride of 2 as :func:`fold` makes it:
        in its 4x4 kernel only the last 3x3 taps count."""
        shape = self.kernel_size, self.stride, self.padding
        known = shape in (((3, 3), (1, 1), (1, 1)), ((4, 4), (2, 2), (1, 1)))
        return known and self.groups == self.in_channels == self.out_channels

    def _depthwise(self, x: Tensor) -> Tensor:
        """On a graphics card: by a kernel of our own, else by cuDNN with a stride of 1, for which it has a quick
        kernel; of that, every second pixel is taken where the stride is 2."""
        if self._taps is None:
            self._taps = self.weight[:, :, -3:, -3:].flatten(1).T.contiguous()  # (9, C)
        assert self.bias is not None
        if self.activation != "relu" and takes(x):
            return depthwise(x, self._taps, self.bias, self.stride[0], relu6=self.activation == "relu6")
        y = F.conv2d(x, self._taps.T.reshape(-1, 1, 3, 3), self.bias, padding=1, groups=self.groups)
        if self.stride[0] == 2:
            y = y[:, :, 1::2, 1::2].contiguous(memory_format=torch.channels_last)
        return _activate(y, self.activation)

    def _apply(self, fn: Any, recurse: bool = True) -> FusedConv:
        self._packed, self._taps = {}, None  # the weights move or change their type
        exact = self.weight.detach()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.groups > 1 and torch.finfo(self.weight.dtype).bits < torch.finfo(exact.dtype).bits:
            self.weight.copy_(round_keeping_sums(exact, self.weight.dtype))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": {}, "_taps": None}


def _activate(y: Tensor, activation: Activation) -> Tensor:
    """The activation of ``y``, in its place."""
    if activation == "relu":
        return y.relu_()
    return y.clamp_(0, 6) if activation == "relu6" else y


@lru_cache
def onednn_works(dtype: torch.dtype) -> bool:
    """Whether the fused operators exist in this PyTorch and run in this type on this processor."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    conv = nn.Conv2d(16, 16, 1).to(dtype)
    probe = FusedConv(16, 16, activation="relu6").to(dtype)
    probe.load_state_dict(conv.state_dict())
    x = torch.ones(1, 16, 4, 4, dtype=dtype).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            y = probe._onednn(x, x.clone())
            return torch.allclose(y.float(), (conv(x) + x).clamp(0, 6).float(), atol=0.05)
    except (RuntimeError, AttributeError, TypeError):
        return False


@lru_cache
def cudnn_fuses(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether cuDNN's fused operators exist in this PyTorch and run in this type on this device."""
    if device.type != "cuda" or not torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        with torch.inference_mode():
            conv = nn.Conv2d(16, 16, 3, padding=1)
            probe = FusedConv(16, 16, 3, padding=1, activation="relu")
            probe.load_state_dict(conv.state_dict())
            probe.to(device, dtype)
            x = torch.linspace(-1, 1, 256).view(1, 16, 4, 4).contiguous(memory_format=torch.channels_last)
            y, there = conv(x), x.to(device, dtype)  # on the CPU: cuDNN would have to look for another kernel
            alone = torch.allclose(probe._cudnn(there, None).float().cpu(), y.relu(), atol=0.05)
            both = probe._cudnn(there, there.clone()).float().cpu()
            return alone and torch.allclose(both, (y + x).relu(), atol=0.05)
    except (RuntimeError, AttributeError, TypeError):
        return False


def _pack(conv: FusedConv, x: Tensor) -> Tensor:
    """The weights in the order that oneDNN wants for inputs like ``x``. Other inputs stay correct, but the weights are
    reordered in every call where their order is another: for a single map it often is."""
    packed: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(
        conv.weight.to_mkldnn(), conv.padding, conv.stride, conv.dilation, conv.groups, list(x.shape)
    )
    return packed


def round_keeping_sums(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (O, I/groups, k, k) in a type of fewer digits, each kernel's sum kept to within its least tap's rounding.

    Tap by tap, the largest first, what rounding took away is added to the next one. Neighbouring pixels are alike, so
    of rounding's errors it is the kernel's sum that is felt, above all in a depthwise convolution, where an output is
    the sum of so few products. A network in bfloat16 placed 18 % of the keypoints more than a pixel away from where it
    places them in float32 with plainly rounded weights, and 5 % with these.
    """
    taps = weight.float().flatten(2)
    order = taps.abs().argsort(dim=-1, descending=True)
    taps = taps.gather(-1, order)
    rounded = torch.empty_like(taps)
    missing = torch.zeros_like(taps[..., 0])
    for index in range(taps.shape[-1]):
        wanted = taps[..., index] + missing
        rounded[..., index] = wanted.to(dtype)
        missing = wanted - rounded[..., index]
    return torch.empty_like(taps).scatter_(-1, order, rounded).view(weight.shape).to(dtype)
