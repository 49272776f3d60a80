from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cpnpose.models.cpn import CPN, CPNConfig
from cpnpose.models.product_conv import ProductConv2d, use_products


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def trained(module: nn.Module, x: Tensor, *, reduced: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer gives for ``x``, in bfloat16 if ``reduced``, and the gradients of the sum of its squares."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
        y = module(x.bfloat16() if reduced else x)
    y.float().square().sum().backward()
    weight = next(module.parameters())
    assert x.grad is not None
    assert weight.grad is not None
    return y.detach().float(), x.grad, weight.grad


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize(("kernel", "stride", "channels"), [(1, 1, 24), (1, 2, 512), (3, 1, 512), (3, 2, 512)])
def test_products_are_the_convolution(kernel: int, stride: int, channels: int, size: tuple[int, int]) -> None:
    plain = nn.Conv2d(channels, 8, kernel, stride, kernel // 2, bias=False)
    products = copy.deepcopy(plain)
    holder = nn.Sequential(products)
    use_products(holder)
    assert type(holder[0]) is ProductConv2d
    x = torch.randn(2, channels, *size).contiguous(memory_format=torch.channels_last)
    # Against float32: oneDNN's own gradient in bfloat16 is sometimes wrong for maps of one pixel.
    for mine, wanted in zip(trained(products, x, reduced=True), trained(plain, x, reduced=False), strict=True):
        assert mine.shape == wanted.shape
        assert (mine - wanted).abs().max() < 0.02 * wanted.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products(x.bfloat16()).is_contiguous(memory_format=torch.channels_last)


def test_evaluation_and_float32_are_the_plain_convolution() -> None:
    plain = nn.Conv2d(16, 8, 1, bias=False)
    products = nn.Sequential(copy.deepcopy(plain))
    use_products(products)
    x = torch.randn(2, 16, 4, 3)
    assert torch.equal(products(x), plain(x))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert torch.equal(products.eval()(x.bfloat16()), plain(x.bfloat16()))


def test_only_layers_that_gain_are_replaced() -> None:
    kept = [
        nn.Conv2d(8, 8, 1),  # a bias
        nn.Conv2d(8, 8, 1, groups=8, bias=False),
        nn.Conv2d(8, 8, 1, stride=2, bias=False),  # few channels
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.Conv2d(512, 8, 3, bias=False),  # no padding
        nn.Conv2d(512, 8, 3, padding=2, dilation=2, bias=False),
    ]
    module = nn.Sequential(*kept, nn.Conv2d(8, 8, 1, bias=False))
    names = list(module.state_dict())
    use_products(module)
    assert [type(layer) is ProductConv2d for layer in module] == [False] * len(kept) + [True]
    assert list(module.state_dict()) == names


@pytest.mark.parametrize("architecture", ["cpn-light", "cpn50"])
def test_a_training_step_is_that_of_the_plain_network(architecture: str) -> None:
    """Maps and gradients of the two forms differ by no more than bfloat16 rounds: held against float32."""
    exact = CPN(CPNConfig(architecture, (64, 64))).train()  # type: ignore[arg-type]
    for module in exact.modules():  # statistics of two people on 2x2 pixels would blow rounding up
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    plain, products = copy.deepcopy(exact), copy.deepcopy(exact)
    use_products(products)
    crops = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    outputs, gradients = [], []
    for model, reduced in ((exact, False), (plain, True), (products, True)):
        if model is plain:
            model.refine_net.eval()  # the concatenation; batch normalisation is in eval mode everywhere
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            maps = model(crops)
        refined = maps.refined.float()
        (refined / refined.detach().std()).square().mean().backward()
        outputs.append(refined.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == gradients[2].keys()

    def distance(first: Tensor, second: Tensor) -> float:
        return float((first - second).norm() / second.norm())

    assert distance(outputs[2], outputs[0]) < 1.5 * distance(outputs[1], outputs[0]) + 1e-3
    for part in ("refine_net.merge.conv1", "refine_net.merge.shortcut.0", "global_net.laterals.0.0"):
        name = f"{part}.weight"
        mine, rounded, wanted = (g[name] for g in (gradients[2], gradients[1], gradients[0]))
        assert distance(mine, wanted) < 1.5 * distance(rounded, wanted) + 1e-2, name
