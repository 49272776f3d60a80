from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cpnpose.models.upsample import upsample, upsample_gradient


@pytest.mark.parametrize(("small", "large"), [((5, 4), (17, 13)), ((1, 3), (4, 12)), ((8, 6), (16, 12))])
def test_gradient_by_matrices_is_pytorchs(small: tuple[int, int], large: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, *small, requires_grad=True)
    gradient = torch.randn(2, 7, *large)
    F.interpolate(x, size=large, mode="bilinear", align_corners=True).backward(gradient)
    torch.testing.assert_close(upsample_gradient(gradient, small), x.grad, atol=1e-5, rtol=1e-5)


def test_bfloat16_has_the_same_values_and_a_gradient_within_its_precision() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 4).contiguous(memory_format=torch.channels_last).to(torch.bfloat16).requires_grad_()
    gradient = torch.randn(2, 8, 20, 16).to(torch.bfloat16)
    y = upsample(x, (20, 16))
    assert torch.equal(y, F.interpolate(x.detach(), size=(20, 16), mode="bilinear", align_corners=True))
    y.backward(gradient)
    expected = upsample_gradient(gradient.float(), (5, 4))
    assert x.grad is not None
    torch.testing.assert_close(x.grad.float(), expected, atol=0.03 * float(expected.abs().max()), rtol=0)


def test_a_map_that_has_the_size_stays_itself() -> None:
    x = torch.randn(1, 2, 6, 4)
    assert upsample(x, (6, 4)) is x
