"""Weights that follow from key names, so that no weights file is needed."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cpnpose.models.cpn import CPN, Architecture, CPNConfig
from cpnpose.models.foreign import key_map


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material beside the repository; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CPNPOSE_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
    if not (folder / "parity").is_dir():
        pytest.skip("needs ../shared/parity")
    return folder


@pytest.fixture(scope="session")
def tensor_of_key() -> Callable[[str, list[int]], Tensor]:
    """The value of an entry of pytorch-cpn's checkpoint, by its key and shape."""
    return _tensor_of_key


@pytest.fixture(scope="session")
def foreign_state() -> Callable[[Architecture], dict[str, Tensor]]:
    """A whole state dict in pytorch-cpn's names, with the prefix ``module.``."""

    def build(architecture: Architecture) -> dict[str, Tensor]:
        with torch.device("meta"):
            shapes = {name: list(value.shape) for name, value in CPN(CPNConfig(architecture)).state_dict().items()}
        keys = {f"module.{theirs}": shapes[ours] for theirs, ours in key_map(architecture).items()}
        return {key: _tensor_of_key(key, shape) for key, shape in keys.items()}

    return build


def _tensor_of_key(key: str, shape: list[int]) -> Tensor:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    if leaf in ("running_mean", "bias"):
        value = 0.1 * random.standard_normal(shape)
    elif leaf == "running_var":
        value = random.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:
        value = random.uniform(0.5, 1.5, shape) * (0.3 if ".bn3." in key else 1.0)
    else:
        value = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, np.float32))
