from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cpnpose.models.cpn import ARCHITECTURES, CPN, CPNConfig
from cpnpose.models.fuse import cpu_chunk, fuse
from cpnpose.models.fuse_conv import FusedConv, cudnn_fuses, onednn_works, round_keeping_sums


def random_cpn(architecture: str, size: tuple[int, int] = (64, 96)) -> CPN:
    """A CPN with random weights whose batch normalisations have random statistics and affine parts."""
    generator = torch.Generator().manual_seed(3)
    model = CPN(CPNConfig(architecture, size))  # type: ignore[arg-type]
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 2.0, generator=generator)  # type: ignore[union-attr]
            nn.init.uniform_(layer.weight, 0.6, 1.2, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.2, generator=generator)
    return model.eval()


def crops(count: int = 2, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(4))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.inference_mode()
def test_fused_form_equals_the_training_form(architecture: str) -> None:
    model = random_cpn(architecture)
    x = crops()
    maps = model(x)
    assert maps.refined.std() > 1e-3 * maps.refined.abs().max()  # a constant map would prove nothing
    fused = fuse(model)(x)
    assert fused.shape == maps.refined.shape == (2, 17, 16, 24)
    assert relative_error(fused, maps.refined) < 1e-4
    fast = fuse(model, fast=True)(x)
    assert fast.shape == maps.global_maps[3].shape
    assert relative_error(fast, maps.global_maps[3]) < 1e-4


@pytest.mark.parametrize("architecture", ["cpn50", "cpn-light"])
@torch.inference_mode()
def test_ordinary_operators_give_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = fuse(random_cpn(architecture))
    expected = fused(crops())
    monkeypatch.setattr("cpnpose.models.fuse_conv.onednn_works", lambda dtype: False)
    assert relative_error(fused(crops()), expected) < 1e-5


@pytest.mark.parametrize(("architecture", "with_sums"), [("cpn50", True), ("cpn-light", False)])
@torch.inference_mode()
def test_operators_of_cudnn_are_called_for_what_they_compute(
    architecture: str, with_sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = fuse(random_cpn(architecture))
    expected = fused(crops())
    called = {"relu": 0, "add_relu": 0}

    def relu(x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
        called["relu"] += 1
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    def add_relu(x: Tensor, weight: Tensor, add: Tensor, alpha: float, bias: Tensor, *shape: Any) -> Tensor:
        called["add_relu"] += 1
        assert add.is_contiguous(memory_format=torch.channels_last)
        return (F.conv2d(x, weight, bias, *shape) + alpha * add).relu()

    monkeypatch.setattr("cpnpose.models.fuse_conv.onednn_works", lambda dtype: False)
    monkeypatch.setattr("cpnpose.models.fuse_conv.cudnn_fuses", lambda dtype, device: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)
    assert relative_error(fused(crops()), expected) < 1e-5
    assert called["relu"] > 20
    assert (called["add_relu"] > 16) == with_sums


def test_cudnn_is_not_asked_for_on_a_cpu() -> None:
    assert not cudnn_fuses(torch.float32, torch.device("cpu"))


@torch.inference_mode()
def test_more_crops_than_go_through_at_once() -> None:
    fused = fuse(random_cpn("cpn-light"))
    x = crops(2 * cpu_chunk() + 1)
    assert relative_error(fused(x), torch.cat([fused(part) for part in x.split(5)])) < 1e-5


@torch.inference_mode()
def test_moving_to_another_type_after_a_call() -> None:
    fused = fuse(random_cpn("cpn-light"))
    expected = fused(crops())
    low = fused.to(torch.bfloat16)(crops().bfloat16())
    assert low.dtype == torch.bfloat16
    back = fused.to(torch.float32)(crops())  # the weights have been rounded, the packed ones must be, too
    assert 0 < relative_error(back, expected) < 0.1


@torch.inference_mode()
def test_fusing_leaves_the_model_alone() -> None:
    model = random_cpn("cpn-light")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse(model)
    fused(crops())
    for parameter in fused.parameters():
        parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.inference_mode()
def test_training_mode_of_the_model_does_not_matter() -> None:
    model = random_cpn("cpn-light")
    expected = fuse(model)(crops())
    assert torch.equal(fuse(model.train())(crops()), expected)


@torch.inference_mode()
def test_rows_do_not_depend_on_their_batch() -> None:
    fused = fuse(random_cpn("cpn-light"))
    x = crops(5)
    together = fused(x)
    for row in range(5):
        assert relative_error(fused(x[row : row + 1]), together[row : row + 1]) < 1e-5


@torch.inference_mode()
def test_a_single_map_and_several_have_their_own_order_of_weights() -> None:
    conv = FusedConv(16, 32, 3, padding=1)
    if not onednn_works(torch.float32):
        pytest.skip("no oneDNN operators here")
    x = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    for rows in (slice(0, 3), slice(1, 2), slice(0, 3)):
        torch.testing.assert_close(conv(x[rows].contiguous(memory_format=torch.channels_last)), wanted[rows])
    assert set(conv._packed) == {True, False}
    conv.double()
    assert not conv._packed


def test_no_crops_give_no_maps() -> None:
    assert fuse(random_cpn("cpn-light"))(crops(0)).shape == (0, 17, 16, 24)


@torch.inference_mode()
def test_bfloat16_stays_close() -> None:
    model = random_cpn("cpn50")
    fused = fuse(model).to(torch.bfloat16)
    maps = fused(crops().bfloat16())
    assert maps.dtype == torch.bfloat16
    expected = model(crops()).refined
    assert (maps.float() - expected).std() / expected.std() < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_keeps_the_sums_of_kernels(dtype: torch.dtype) -> None:
    weight = torch.randn(64, 1, 3, 3, generator=torch.Generator().manual_seed(5))
    rounded = round_keeping_sums(weight, dtype)
    assert rounded.dtype == dtype
    digit = torch.finfo(dtype).eps
    largest, least = (extreme(weight.abs(), dim=(1, 2, 3)) for extreme in (torch.amax, torch.amin))
    assert ((rounded.float() - weight).abs().amax((1, 2, 3)) <= digit * largest).all()
    off, plainly_off = (abs((w.double() - weight.double()).sum((1, 2, 3))) for w in (rounded, weight.to(dtype)))
    # The least tap may have grown by half a digit of its neighbour before it was rounded itself.
    assert (off <= digit * (least + digit * largest)).all()
    assert off.mean() < 0.1 * plainly_off.mean()


@torch.inference_mode()
def test_depthwise_weights_are_rounded_with_their_sums() -> None:
    """What a network in bfloat16 multiplies with; its 1x1 convolutions are rounded plainly."""
    model = random_cpn("cpn-light")
    exact, low = fuse(model), fuse(model).to(torch.bfloat16)
    seen = {False: 0, True: 0}  # by depthwise
    for before, after in zip(exact.modules(), low.modules(), strict=True):
        if isinstance(before, FusedConv) and isinstance(after, FusedConv):
            depthwise = before.groups > 1
            wanted = round_keeping_sums(before.weight, torch.bfloat16) if depthwise else before.weight.bfloat16()
            assert torch.equal(after.weight, wanted)
            seen[depthwise] += 1
    assert seen[False] > 20
    assert seen[True] > 10
    again = fuse(model).to(memory_format=torch.channels_last).to(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), exact.parameters(), strict=True))


class MetaWithoutFloat64(TorchDispatchMode):
    """Makes a device like MPS of ``meta``: it has no float64, and tensors can be copied from it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_meta and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return result


@pytest.mark.parametrize("fast", [False, True])
def test_a_device_without_float64_is_enough(fast: bool) -> None:
    model = CPN(CPNConfig("cpn-light", (64, 64))).to("meta", torch.float16)
    with MetaWithoutFloat64():
        fused = fuse(model, fast)
    assert {(value.device.type, value.dtype) for value in fused.parameters()} == {("meta", torch.float16)}
