from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cpnpose.errors import WeightsError
from cpnpose.models.backbone import (
    MobileNetV2Features,
    ResNetFeatures,
    SamePadConv2d,
    load_imagenet_backbone,
    settle_batch_norm,
    use_same_padding,
)
from cpnpose.models.cpn import ARCHITECTURES, CPN, CPNConfig, upsample


@pytest.mark.parametrize(("architecture", "parameters"), [("cpn50", 27_406_826), ("cpn101", 46_398_954)])
def test_number_of_parameters_is_that_of_the_published_network(architecture: str, parameters: int) -> None:
    with torch.device("meta"):
        model = CPN(CPNConfig(architecture))  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_light_network_is_a_small_one() -> None:
    with torch.device("meta"):
        model = CPN(CPNConfig("cpn-light"))
    assert 2_000_000 < sum(parameter.numel() for parameter in model.parameters()) < 5_000_000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(256, 192), (64, 96)])
def test_shapes(architecture: str, size: tuple[int, int]) -> None:
    config = CPNConfig(architecture, size)  # type: ignore[arg-type]
    with torch.device("meta"):
        model = CPN(config)
        maps = model(torch.zeros(3, 3, *size))
        features = model.backbone(torch.zeros(3, 3, *size))
    assert config.heatmap_size == (size[0] // 4, size[1] // 4)
    assert maps.refined.shape == (3, 17, *config.heatmap_size)
    assert [level.shape for level in maps.global_maps] == [(3, 17, *config.heatmap_size)] * 4
    assert [(f.shape[1], size[0] // f.shape[2]) for f in features] == [
        (channels, stride) for channels, stride in zip(model.backbone.channels, (32, 16, 8, 4), strict=True)
    ]


def test_no_convolution_of_the_heads_has_a_bias() -> None:
    with torch.device("meta"):
        model = CPN(CPNConfig("cpn50"))
    assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Conv2d))


def test_upsampling_aligns_the_corners() -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 2, 4)
    wide = upsample(ramp, (2, 7))
    assert wide[0, 0, 0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3])


def test_every_part_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = CPN(CPNConfig("cpn-light", (64, 64)))
    maps = model(torch.randn(2, 3, 64, 64))
    (sum(level.square().mean() for level in maps.global_maps) + maps.refined.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def _same_by_hand(x: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """TensorFlow's SAME, stride 2, even sizes: one row below and one column right of zeros; term by term."""
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    padded = torch.zeros(*x.shape[:2], x.shape[-2] + 1, x.shape[-1] + 1, dtype=x.dtype)
    padded[..., :-1, :-1] = x
    per_group = weight.shape[1]
    out = torch.zeros(len(x), weight.shape[0], height, width, dtype=x.dtype)
    for o in range(weight.shape[0]):
        first = o * groups // weight.shape[0] * per_group
        for i in range(per_group):
            for dy in range(3):
                for dx in range(3):
                    seen = padded[:, first + i, dy : dy + 2 * height : 2, dx : dx + 2 * width : 2]
                    out[:, o] += weight[o, i, dy, dx] * seen
    return out


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
def test_same_padding_is_tensorflows_in_both_modes(groups: int, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    conv = SamePadConv2d(6, 6, 3, stride=2, padding=0, groups=groups, bias=False).double()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    expected = _same_by_hand(x, conv.weight.detach(), groups)
    assert torch.allclose(conv.train()(x), expected)
    assert torch.allclose(conv.eval()(x), expected)
    explicit = F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2, groups=groups)
    assert torch.allclose(explicit, expected)


def test_same_padding_has_the_same_gradients_in_both_modes() -> None:
    torch.manual_seed(2)
    conv = SamePadConv2d(4, 4, 3, stride=2, padding=0, groups=4, bias=False).double()
    x = torch.randn(2, 4, 6, 10, dtype=torch.float64, requires_grad=True)
    gradients = []
    for mode in (True, False):
        conv.train(mode)(x).pow(3).sum().backward()
        gradients.append((x.grad, conv.weight.grad))
        x.grad = conv.weight.grad = None
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_only_strided_3x3_convolutions_are_replaced() -> None:
    backbone = MobileNetV2Features()
    strided = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert len(strided) == 5
    assert all(isinstance(module, SamePadConv2d) for module in strided)
    plain = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1, stride=2))
    use_same_padding(plain)
    assert not any(isinstance(module, SamePadConv2d) for module in plain)


def _folded_backbone(seed: int) -> MobileNetV2Features:
    """Identity batch normalisations up to weight and bias, as weights have whose normalisation was folded."""
    torch.manual_seed(seed)
    backbone = MobileNetV2Features().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return backbone


@torch.no_grad()
def test_settling_changes_nothing_in_eval_mode_and_little_in_training_mode() -> None:
    backbone = _folded_backbone(3)
    batches = [torch.randn(8, 3, 64, 64) for _ in range(2)]
    before = backbone(batches[0])
    shaken = backbone.train()(batches[0])
    backbone = _folded_backbone(3)
    settle_batch_norm(backbone, batches)
    assert not backbone.training
    after = backbone(batches[0])
    for old, new in zip(before, after, strict=True):
        assert (new - old).abs().max() < 1e-3 * old.abs().max()
    trained = backbone.train()(batches[0])
    for old, new, unsettled in zip(before[1:], trained[1:], shaken[1:], strict=True):
        assert (new - old).std() < 0.3 * old.std()
        assert (new - old).std() < 0.3 * (unsettled - old).std()


@torch.no_grad()
def test_settled_statistics_are_those_of_the_batches() -> None:
    backbone = _folded_backbone(4)
    batches = [torch.randn(4, 3, 32, 32) for _ in range(3)]
    first = backbone.features[0]
    inputs = first[0](torch.cat(batches))
    settle_batch_norm(backbone, batches)
    assert torch.allclose(first[1].running_mean, inputs.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(first[1].running_var, inputs.var((0, 2, 3), unbiased=False), rtol=1e-3)


def _arrays(backbone: MobileNetV2Features) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float16) for name, value in backbone.state_dict().items()}


def test_backbone_weights_are_read(tmp_path: Path) -> None:
    source, target = _folded_backbone(5), MobileNetV2Features()
    path = tmp_path / "backbone.npz"
    arrays = {k: v for k, v in _arrays(source).items() if not k.endswith("num_batches_tracked")}
    np.savez(path, **arrays, **{"classifier.1.weight": np.zeros((2, 2), np.float16)})
    load_imagenet_backbone(target, path)
    for (name, ours), theirs in zip(target.state_dict().items(), source.state_dict().values(), strict=True):
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(ours, theirs.half().float()), name


def test_backbone_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "backbone.npz"
    with pytest.raises(WeightsError, match=r"backbone\.npz"):
        load_imagenet_backbone(MobileNetV2Features(), path)
    path.write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_imagenet_backbone(MobileNetV2Features(), path)
    arrays = _arrays(MobileNetV2Features())
    del arrays["features.0.0.weight"]
    np.savez(path, **arrays)
    with pytest.raises(WeightsError, match=r"missing \['features\.0\.0\.weight'\]"):
        load_imagenet_backbone(MobileNetV2Features(), path)
    arrays["features.0.0.weight"] = np.zeros((3, 3), np.float16)
    np.savez(path, **arrays)
    with pytest.raises(WeightsError, match=r"features\.0\.0\.weight"):
        load_imagenet_backbone(MobileNetV2Features(), path)


def test_resnet_has_its_stride_in_the_3x3() -> None:
    with torch.device("meta"):
        block = ResNetFeatures(50).layer2[0]
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)
