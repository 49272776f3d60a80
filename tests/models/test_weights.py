from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cpnpose.errors import OutputError, WeightsError
from cpnpose.models.cpn import CPN, CPNConfig
from cpnpose.models.manifest import Entry, Manifest, file_sha256, update_entry
from cpnpose.models.weights import WeightsMetadata, find_weights, load_cpn, load_state, read_metadata, save_weights
from cpnpose.pose.types import Preprocessing

METADATA = WeightsMetadata(
    architecture="cpn-light",
    input_size=(128, 96),
    preprocessing=Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0.2, 0.3)),
    name="tiny",
    data="eight made-up people, ünïcode",
    recipe="none",
    licence="CC0",
    metrics={"AP": 12.5, "people": 8, "protocol": "gt boxes, flip"},
    decoding="dark",
)


@pytest.fixture(scope="module")
def light() -> CPN:
    torch.manual_seed(0)
    model = CPN(CPNConfig("cpn-light", (128, 96)))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


class Small(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs)


def test_metadata_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Small().state_dict(), METADATA)
    assert read_metadata(path) == METADATA
    detector = dataclasses.replace(
        METADATA, kind="detector", architecture="fasterrcnn", config={"sizes": [[1, 2], 3.5]}
    )
    save_weights(path, Small().state_dict(), detector)
    assert read_metadata(path) == detector


def test_cpn_comes_back_in_float32_and_eval_mode(tmp_path: Path, light: CPN) -> None:
    crops = torch.randn(2, 3, 128, 96)
    path = tmp_path / "new folder" / "w.safetensors"
    with torch.inference_mode():
        expected = light(crops)
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 1e-2)):
            save_weights(path, light.state_dict(), METADATA, dtype)
            model, metadata = load_cpn(path)
            found = model(crops)
            pairs = zip((*found.global_maps, found.refined), (*expected.global_maps, expected.refined), strict=True)
            for ours, theirs in pairs:
                assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()
    assert not model.training
    assert metadata == METADATA
    assert model.config == CPNConfig("cpn-light", (128, 96))
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    assert all(int(v) == 0 for k, v in model.state_dict().items() if k.endswith("num_batches_tracked"))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_stored_precision_and_counters(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    small = Small()
    small.bn.running_var.fill_(1e9)  # more than float16 holds
    save_weights(path, small.state_dict(), METADATA)
    fresh = Small().double()
    load_state(path, fresh)
    assert fresh.conv.weight.dtype == torch.float64
    assert torch.equal(fresh.conv.weight, small.conv.weight.half().double())
    assert torch.equal(fresh.bn.running_var, small.bn.running_var.double())
    assert b"num_batches_tracked" not in path.read_bytes()


def test_nothing_but_the_file_is_left_and_it_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Small().state_dict(), METADATA)
    before = path.read_bytes()
    broken = Small()
    with torch.no_grad():
        broken.conv.weight[0] = 1e6
    with pytest.raises(WeightsError, match=r"conv\.weight is not finite as torch\.float16"):
        save_weights(path, broken.state_dict(), METADATA)
    assert path.read_bytes() == before
    save_weights(path, broken.state_dict(), METADATA, torch.float32)
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file/w"):
        save_weights(tmp_path / "file" / "w.safetensors", Small().state_dict(), METADATA)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save_weights(tmp_path / "folder.safetensors", Small().state_dict(), METADATA)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_tied_and_strided_tensors_can_be_saved(tmp_path: Path) -> None:
    weight = torch.randn(4, 6)
    state = {"a": weight, "b": weight, "c": weight.T, "d": weight[:, ::2], "e": torch.tensor([7])}
    save_weights(tmp_path / "w.safetensors", state, METADATA, torch.float32)
    module = nn.Module()
    for name, value in state.items():
        module.register_buffer(name, torch.zeros_like(value.contiguous()))
    load_state(tmp_path / "w.safetensors", module)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in state.items())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = Small(outputs=5).state_dict()
    state["stranger"] = state.pop("conv.bias")
    save_weights(path, state, METADATA)
    with pytest.raises(WeightsError) as caught:
        load_state(path, Small())
    message = str(caught.value)
    assert str(path) in message
    assert "unknown: stranger;" in message
    assert "missing: conv.bias;" in message
    assert "conv.weight (5, 2, 1, 1) instead of (3, 2, 1, 1), bn.weight (5,) instead of (3,)" in message


def test_long_lists_are_cut(tmp_path: Path, light: CPN) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Small().state_dict(), METADATA)
    with pytest.raises(WeightsError, match=r"and \d+ more") as caught:
        load_state(path, light)
    assert len(str(caught.value)) < 1000


def test_pickles_are_refused_and_the_converter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for zipped in (True, False):
        torch.save(Small().state_dict(), path, _use_new_zipfile_serialization=zipped)
        for read in (read_metadata, load_cpn, lambda file: load_state(file, Small())):
            with pytest.raises(WeightsError, match=r"w\.safetensors is a pickled .*weights import"):
                read(path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Small().state_dict(), METADATA)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:20], whole[:-10], whole + b"more"):
        path.write_bytes(content)
        for read in (read_metadata, lambda file: load_state(file, Small())):
            with pytest.raises(WeightsError, match=r"w\.safetensors is damaged.*anew"):
                read(path)


def test_metadata_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    good = {"cpnpose_format": "1", "architecture": '"cpn50"', "input_size": "[256, 192]", "preprocessing": "{}"}
    tensor = {"a": torch.zeros(1)}
    save_file(tensor, path)
    with pytest.raises(WeightsError, match="no metadata of cpnpose"):
        read_metadata(path)
    save_file(tensor, path, metadata=good)
    assert read_metadata(path) == WeightsMetadata("cpn50", (256, 192))
    for change, told in (
        ({"cpnpose_format": "99"}, "newer.*update"),
        ({"input_size": "[256]"}, "cannot be read"),
        ({"input_size": "{"}, "cannot be read"),
        ({"preprocessing": json.dumps({"gamma": [1]})}, "gamma"),
        ({"kind": '"hands"'}, "hands.*unknown"),
        ({"decoding": '"magic"'}, "magic.*unknown"),
    ):
        save_file(tensor, path, metadata=good | change)
        with pytest.raises(WeightsError, match=told):
            read_metadata(path)


def test_a_detector_is_no_cpn(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Small().state_dict(), dataclasses.replace(METADATA, kind="detector", architecture="fasterrcnn"))
    with pytest.raises(WeightsError, match=r"detector network 'fasterrcnn'"):
        load_cpn(path)


def test_names_are_looked_up_in_the_manifest(tmp_path: Path, light: CPN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpnpose.models.manifest.shipped_folder", lambda: tmp_path / "shipped")
    monkeypatch.setenv("CPNPOSE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="names no default pose weights"):
        find_weights("default")
    with pytest.raises(WeightsError, match=r"no weights called 'tiny'; known: none so far"):
        find_weights("tiny")
    path = tmp_path / "cache" / "tiny.safetensors"
    save_weights(path, light.state_dict(), METADATA)
    entry = Entry("tiny", "pose", path.name, file_sha256(path), url="http://localhost/tiny.safetensors")
    update_entry(Manifest(tmp_path / "shipped"), entry)
    assert find_weights("tiny") == find_weights("default") == find_weights(path) == find_weights(str(path)) == path
    assert load_cpn("default")[1].name == "tiny"
    path.unlink()
    with pytest.raises(WeightsError, match=r"run 'cpnpose weights download tiny'"):
        find_weights("default")
    for absent in ("absent.safetensors", "folder/absent", tmp_path / "absent", tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            find_weights(absent)
