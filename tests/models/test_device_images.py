from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cpnpose.models import device_images


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPU takes a graphics card's place; what is noted are the images of each copy."""
    copies: list[int] = []

    def to(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        copies.append(len(tensor))
        return tensor

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options))
    monkeypatch.setattr(Tensor, "to", to)
    return copies


def test_images_go_to_a_card_in_order_and_in_blocks(card: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(5)]
    images[2] = images[2][:, ::-1]  # a view
    monkeypatch.setattr(device_images, "_LOCKED_BYTES", 2 * images[0].nbytes + 1)
    found = device_images.upload(images, torch.device("cuda"))
    assert card == [2, 2, 1]
    for tensor, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(np.asarray(tensor), image)


def test_an_image_larger_than_a_block_goes_alone(card: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_images, "_LOCKED_BYTES", 10)
    assert len(device_images.upload([np.zeros((4, 6, 3), np.uint8)] * 3, torch.device("cuda"))) == 3
    assert card == [1, 1, 1]
