from __future__ import annotations

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.cpn import CPN, Architecture, CPNConfig
from cpnpose.models.foreign import import_checkpoint, key_map, read_checkpoint, size_in_name
from cpnpose.models.weights import load_cpn, read_metadata

GOLDEN = Path(__file__).parent / "golden" / "cpn_96x64.npz"
States = Callable[[Architecture], dict[str, Tensor]]


@pytest.fixture(scope="module")
def zeros(foreign_state: States) -> dict[str, Tensor]:
    """A checkpoint's state dict of the right names and shapes; contents do not matter."""
    return {key: torch.zeros_like(value) for key, value in _cached(foreign_state, "cpn50").items()}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Checkpoints are large: the folder goes when the test ends, and not some runs later."""
    yield tmp_path
    shutil.rmtree(tmp_path)


_states: dict[str, dict[str, Tensor]] = {}


def _cached(foreign_state: States, architecture: Architecture) -> dict[str, Tensor]:
    if architecture not in _states:
        _states[architecture] = foreign_state(architecture)
    return _states[architecture]


def _save(path: Path, state: dict[str, Any], **others: Any) -> Path:
    torch.save({"epoch": 32, "state_dict": OrderedDict(state), "optimizer": {}, **others}, path)
    return path


def _relative(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _input(height: int, width: int, count: int = 2) -> Tensor:
    noise = np.random.RandomState(1).standard_normal((count, 3, height, width))
    return torch.from_numpy(noise.astype(np.float32) * 0.25)


@pytest.mark.parametrize("architecture", ["cpn50", "cpn101"])
def test_network_agrees_with_the_public_implementation(
    architecture: Architecture,
    shared: Path,
    tmp_path: Path,
    tensor_of_key: Callable[[str, list[int]], Tensor],
    foreign_state: States,
) -> None:
    keys: list[tuple[str, list[int]]] = json.loads((shared / "parity" / f"{architecture}_keys.json").read_text())
    ours = _cached(foreign_state, architecture)
    assert {key: list(value.shape) for key, value in ours.items()} == dict(keys)
    path = _save(tmp_path / "checkpoint.pth.tar", {key: ours[key] for key, _ in keys})
    import_checkpoint(path, tmp_path / "w.safetensors")
    model, metadata = load_cpn(tmp_path / "w.safetensors")
    assert metadata.architecture == architecture
    for height, width in ((256, 192), (384, 288)):
        with torch.inference_mode():
            maps = model(_input(height, width))
        expected = np.load(shared / "parity" / f"{architecture}_{height}x{width}.npz")
        assert _relative(maps.refined.numpy(), expected["refined"]) < 1e-4
        for level, global_map in enumerate(maps.global_maps):
            assert _relative(global_map.numpy()[..., ::4, ::4], expected[f"global{level}"]) < 1e-4


@pytest.mark.parametrize("architecture", ["cpn50", "cpn101"])
def test_network_agrees_with_its_golden(architecture: Architecture, tmp_path: Path, foreign_state: States) -> None:
    """The golden was written by this test with CPNPOSE_WRITE_GOLDEN=1, when the parity test above held."""
    checkpoint = read_checkpoint(_save(tmp_path / "checkpoint.pth.tar", _cached(foreign_state, architecture)))
    model = CPN(CPNConfig(checkpoint.architecture, (96, 64))).eval()
    model.load_state_dict(checkpoint.state_dict, strict=False)
    with torch.inference_mode():
        maps = model(_input(96, 64, 1))
    found = {"refined": maps.refined.numpy()[..., ::2, ::2]}
    found |= {f"global{level}": m.numpy()[..., ::4, ::4] for level, m in enumerate(maps.global_maps)}
    found["squares"] = np.array([float(m.double().square().sum()) for m in (*maps.global_maps, maps.refined)])
    if os.environ.get("CPNPOSE_WRITE_GOLDEN"):
        stored = dict(np.load(GOLDEN)) if GOLDEN.exists() else {}
        np.savez_compressed(GOLDEN, **stored | {f"{architecture}_{name}": value for name, value in found.items()})
    golden = np.load(GOLDEN)
    for name, value in found.items():
        assert _relative(value, golden[f"{architecture}_{name}"]) < 1e-4, name


def test_golden_is_small() -> None:
    assert GOLDEN.stat().st_size < 50_000


@pytest.mark.parametrize("architecture", ["cpn50", "cpn101"])
def test_key_map_reaches_every_entry_of_our_network_once(architecture: Architecture) -> None:
    ours = list(key_map(architecture).values())
    with torch.device("meta"):
        wanted = CPN(CPNConfig(architecture)).state_dict()
    assert sorted(ours) == sorted(wanted)


def test_checkpoints_without_prefix_and_counters_are_read_too(tmp_path: Path, foreign_state: States) -> None:
    full = _cached(foreign_state, "cpn50")
    old = {k.removeprefix("module."): v for k, v in full.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(full)
    first = read_checkpoint(_save(tmp_path / "new.pth.tar", full))
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)  # as torch wrote before 1.6
    second = read_checkpoint(tmp_path / "old.pth")
    assert (first.epoch, second.epoch) == (32, None)
    assert first.state_dict.keys() == second.state_dict.keys()
    assert all(torch.equal(value, second.state_dict[name]) for name, value in first.state_dict.items())
    assert torch.equal(
        second.state_dict["refine_net.merge.shortcut.0.weight"],
        full["module.refine_net.final_predict.0.downsample.0.weight"],
    )


def test_import_tells_what_it_wrote(tmp_path: Path, zeros: dict[str, Tensor]) -> None:
    path = _save(tmp_path / "CPN50_384x288.pth.tar", zeros)
    written = import_checkpoint(path, tmp_path / "w.safetensors", dtype=torch.float16)
    metadata = read_metadata(tmp_path / "w.safetensors")
    assert metadata == written
    assert (metadata.architecture, metadata.input_size, metadata.decoding) == ("cpn50", (384, 288), "published")
    assert metadata.preprocessing.mean == (122.7717, 115.9465, 102.9801)
    assert metadata.preprocessing.std == (255, 255, 255)
    assert metadata.preprocessing.box_padding == (0.10, 0.15)
    assert "CPN50_384x288.pth.tar" in metadata.recipe
    assert "epoch 32" in metadata.recipe
    assert (tmp_path / "w.safetensors").stat().st_size < 60e6
    assert import_checkpoint(path, tmp_path / "w.safetensors", input_size=(128, 96)).input_size == (128, 96)
    with pytest.raises(OptionError, match=r"250x192.*multiples of 32"):
        import_checkpoint(path, tmp_path / "w.safetensors", input_size=(250, 192))


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, zeros: dict[str, Tensor]) -> None:
    gone = "module.global_net.predict.2.3.weight"
    state = {key: value for key, value in zeros.items() if key != gone}
    state["module.extra.weight"] = torch.zeros(1)
    state["module.refine_net.final_predict.1.weight"] = torch.zeros(14, 256, 3, 3)
    state["module.resnet.bn1.bias"] = torch.zeros(64, dtype=torch.int64)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(_save(tmp_path / "c.pth.tar", state))
    message = str(caught.value)
    assert "unknown: extra.weight;" in message
    assert "missing: global_net.predict.2.3.weight;" in message
    assert "refine_net.final_predict.1.weight (14, 256, 3, 3) instead of (17, 256, 3, 3)" in message
    assert "resnet.bn1.bias is no tensor of floating numbers" in message


def test_other_networks_are_refused(tmp_path: Path, zeros: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"no entries resnet\.layer3.*its own: backbone\.conv\.weight"):
        read_checkpoint(_save(tmp_path / "other.pth", {"backbone.conv.weight": torch.zeros(1)}))
    deeper = zeros | {f"module.resnet.layer3.{block}.conv1.weight": torch.zeros(1) for block in range(36)}
    with pytest.raises(WeightsError, match=r"ResNet-101; unknown: resnet\.layer3\.23\.conv1\.weight"):
        read_checkpoint(_save(tmp_path / "resnet152.pth", deeper))
    doubled = zeros | {"resnet.conv1.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"resnet\.conv1\.weight both with and without"):
        read_checkpoint(_save(tmp_path / "doubled.pth", doubled))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("evil-was-run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = _save(tmp_path / "evil.pth.tar", {"module.resnet.conv1.weight": torch.zeros(1)}, hook=_Evil())
    with pytest.raises(WeightsError, match=r"evil\.pth\.tar .*more than tensors"):
        read_checkpoint(path)
    assert not (tmp_path / "evil-was-run").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off", b"\x80\x02cut"])
def test_damaged_checkpoints_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth.tar"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.pth\.tar"):
        read_checkpoint(path)


def test_cut_and_absent_checkpoints_are_named(tmp_path: Path) -> None:
    path = _save(tmp_path / "cut.pth.tar", {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match=r"cut\.pth\.tar"):
        read_checkpoint(path)
    with pytest.raises(WeightsError, match=r"absent\.pth\.tar"):
        read_checkpoint(tmp_path / "absent.pth.tar")
    torch.save([1, 2], tmp_path / "list.pth.tar")
    with pytest.raises(WeightsError, match="no dict"):
        read_checkpoint(tmp_path / "list.pth.tar")


def test_size_in_name() -> None:
    assert size_in_name("CPN101_384x288.pth.tar") == (384, 288)
    assert size_in_name("epoch32checkpoint.pth.tar") is None
