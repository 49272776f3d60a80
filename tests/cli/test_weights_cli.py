from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from cpnpose.cli.main import app
from cpnpose.models.cpn import CPN, CPNConfig
from cpnpose.models.foreign import key_map
from cpnpose.models.manifest import Entry, file_sha256, load_manifest, update_entry
from cpnpose.models.weights import WeightsMetadata, load_cpn, read_metadata, save_weights


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpnpose.models.manifest.shipped_folder", lambda: tmp_path / "shipped")
    monkeypatch.setenv("CPNPOSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A weights file as training leaves it."""
    path = tmp_path / "run" / "small.safetensors"
    metadata = WeightsMetadata(
        "cpn-light", (256, 192), name="small", data="eight people", licence="CC0", metrics={"AP (gt boxes, flip)": 12.5}
    )
    save_weights(path, {"a": torch.zeros(1000)}, metadata)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Address of a server of the folder ``site``."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "site").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_without_weights_the_commands_say_so(tmp_path: Path) -> None:
    for command in ("list", "verify"):
        result = run(command)
        assert result.exit_code == 0
        assert f"No weights are registered in {tmp_path / 'shipped'}" in result.stdout
    result = run("download", "cpn50")
    assert result.exit_code == 5
    assert "error: there are no weights called 'cpn50'; known: none so far" in result.stderr


def test_add_list_verify(tmp_path: Path, small: Path) -> None:
    result = run("add", small)
    assert result.exit_code == 0, result.stderr
    assert file_sha256(small) in result.stdout
    second = run("add", small, "--name", "other", "--default")
    assert second.exit_code == 0, second.stderr
    manifest = load_manifest()
    assert manifest.default_pose == "other"
    assert set(manifest.entries) == {"small", "other"}

    listed = run("list").stdout
    assert "other (default pose): pose, 0.0 MB, " in listed
    assert "small: pose" in listed
    assert "measured: AP (gt boxes, flip) 12.5" in listed
    assert "data: eight people" in listed

    result = run("verify")
    assert result.exit_code == 0
    assert result.stdout.count(": ok, ") == 2
    (tmp_path / "shipped" / small.name).write_bytes(b"damaged")
    result = run("verify", "small")
    assert result.exit_code == 5
    assert "small.safetensors is damaged: sha256 " in result.stderr
    assert "1 of 1 weights files are not as the manifest says" in result.stderr
    assert run("verify", "absent").exit_code == 5


def test_add_refuses_what_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("text")
    result = run("add", tmp_path / "text.safetensors")
    assert result.exit_code == 5
    assert "text.safetensors is damaged or no safetensors file" in result.stderr
    assert not (tmp_path / "shipped").exists()


def test_download(tmp_path: Path, small: Path, site: str) -> None:
    small.rename(tmp_path / "site" / small.name)
    published = tmp_path / "site" / small.name
    url = f"{site}/{small.name}"
    entry = Entry("small", "pose", small.name, file_sha256(published), url=url)
    update_entry(update_entry(load_manifest(), entry), Entry("bad", "pose", "bad.s", "0" * 64, url=url))
    assert "small (default pose): pose, not downloaded" in run("list").stdout
    assert "small: not downloaded" in run("verify").stdout
    assert run("verify", "small").exit_code == 5

    result = run("download", "small")
    assert result.exit_code == 0, result.stderr
    path = tmp_path / "cache" / small.name
    assert result.stdout == f"{path}\n"
    assert "small" in result.stderr  # the bar
    assert run("download", "small").stderr.strip() == ""  # nothing to fetch, no bar
    assert path.read_bytes() == published.read_bytes()
    assert f"small: ok, {path}" in run("verify").stdout
    assert run("download", "default", "--quiet").stderr == ""

    result = run("download", "bad")
    assert result.exit_code == 5
    assert "does not give the expected file" in result.stderr
    assert not (tmp_path / "cache" / "bad.s").exists()


def test_import(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in CPN(CPNConfig("cpn50")).state_dict().items()}
    state = {f"module.{theirs}": torch.zeros(shapes[ours]) for theirs, ours in key_map("cpn50").items()}
    state["module.resnet.conv1.weight"] += 0.1  # rounds in fp16
    checkpoint, out = tmp_path / "checkpoint.pth.tar", tmp_path / "out.safetensors"
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {}}, checkpoint)

    result = run("import", checkpoint, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "cpn50, input 256x192" in result.stdout
    assert "give --size" in result.stderr
    model, metadata = load_cpn(out)
    assert metadata.decoding == "published"
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], state["module.resnet.conv1.weight"])

    result = run("import", checkpoint, "--out", out)
    assert result.exit_code == 4
    assert "out.safetensors exists; use --overwrite" in result.stderr
    result = run("import", checkpoint, "--out", out, "--overwrite", "--size", "384x288", "--precision", "fp16")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert read_metadata(out).input_size == (384, 288)
    assert out.stat().st_size < 60e6

    for options, code in (
        (("--out", tmp_path / "out.pth"), 2),
        (("--out", tmp_path / "a.safetensors", "--size", "big"), 2),
        (("--out", tmp_path / "a.safetensors", "--size", "100x100"), 2),
    ):
        assert run("import", checkpoint, *options).exit_code == code
    del state["module.resnet.conv1.weight"]
    torch.save(state, checkpoint)
    result = run("import", checkpoint, "--out", tmp_path / "a.safetensors")
    assert result.exit_code == 5
    assert "missing: resnet.conv1.weight" in result.stderr
    assert not (tmp_path / "a.safetensors").exists()
    for large in (checkpoint, out):
        large.unlink()
