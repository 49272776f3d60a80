from __future__ import annotations

import torch
from torch import nn

from cpnpose.models.detector import DetectorConfig, build_detector
from cpnpose.models.fuse_conv import FusedConv
from cpnpose.models.fuse_module import use_fused_convolutions


@torch.inference_mode()
def test_a_sequence_keeps_its_function() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6()),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.Identity(),
        nn.ReLU(),
        nn.Sigmoid(),
        nn.Conv2d(16, 8, 1, bias=False),
    ).eval()
    model[0][1].running_mean.normal_()
    model[0][1].running_var.uniform_(0.5, 2)
    holder = nn.ModuleDict({"inside": model})
    x = torch.randn(2, 3, 16, 12)
    expected = model(x)
    use_fused_convolutions(holder)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 3
    assert all(isinstance(conv, FusedConv) for conv in convs)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.ReLU6) for module in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_detector_keeps_its_function() -> None:
    torch.manual_seed(2)
    model = build_detector(DetectorConfig(channels=32, hidden=64, proposals=20)).eval()
    x = torch.randn(2, 3, 128, 96).contiguous(memory_format=torch.channels_last)
    features = model.pyramid(x)
    scores = model.rpn.head(list(features.values()))[0]
    use_fused_convolutions(model)
    fused = model.pyramid(x)
    for name, level in features.items():
        torch.testing.assert_close(fused[name], level, rtol=1e-4, atol=1e-4 * float(level.abs().max()))
    for a, b in zip(model.rpn.head(list(fused.values()))[0], scores, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert len(model(x)) == 2
