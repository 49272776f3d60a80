from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpnpose.pose.types import Preprocessing
from cpnpose.training import device_set
from cpnpose.training.annotations import read_people
from cpnpose.training.dataset import CropCache, batch_of, build_cache
from cpnpose.training.device_set import fits, load_on_device

CPU = torch.device("cpu")


@pytest.fixture
def cache(drawn: Any, tmp_path: Path) -> CropCache:
    return build_cache(read_people([drawn.annotations], drawn.images), (64, 64), Preprocessing(), tmp_path)


def test_batches_of_the_device_are_the_caches(cache: CropCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_set, "_ROWS_AT_ONCE", 5)  # 18 people: three whole parts and a rest
    rows = np.array([17, 3, 3, 0, 9], np.int64)
    mine, expected = load_on_device(cache, CPU).batch_of(rows), batch_of(cache, rows, CPU)
    assert mine.pixels.dtype == torch.uint8
    assert torch.equal(mine.pixels, expected.pixels)
    assert torch.equal(mine.keypoints_xy, expected.keypoints_xy)
    assert torch.equal(mine.visibility, expected.visibility)


def test_only_a_card_with_room_holds_the_set(cache: CropCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fits(cache, CPU)
    for free, expected in ((2 * cache.pixels.nbytes, True), (2 * cache.pixels.nbytes - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert fits(cache, torch.device("cuda")) is expected
