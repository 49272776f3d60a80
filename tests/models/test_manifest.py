from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from cpnpose.errors import OutputError, WeightsError
from cpnpose.models.manifest import (
    Entry,
    Manifest,
    cache_folder,
    file_sha256,
    load_manifest,
    locate,
    shipped_folder,
    update_entry,
    verify,
)
from cpnpose.models.publish import add_weights
from cpnpose.models.weights import WeightsMetadata, save_weights

POSE = Entry(
    name="cpn50-256x192",
    kind="pose",
    file="cpn50-256x192.safetensors",
    sha256="0" * 64,
    licence='CC BY 4.0 "as is"',
    data="COCO,\nwith a line break, a \\ and ümlauts \x7f",
    metrics={"AP": 71.5, "people": 8, "protocol: boxes = gt": "flip", "tiny": 1e-7},
    url="https://example.org/cpn50.safetensors",
)
DETECTOR = Entry("person-detector", "detector", "person-detector.safetensors", "f" * 64)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = update_entry(update_entry(Manifest(tmp_path), POSE), DETECTOR)
    assert load_manifest(tmp_path) == manifest
    assert manifest.entries == {POSE.name: POSE, DETECTOR.name: DETECTOR}
    assert (manifest.default_pose, manifest.default_detector) == (POSE.name, DETECTOR.name)
    assert manifest.entry("default") == POSE
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.toml"]


def test_defaults_change_only_when_asked(tmp_path: Path) -> None:
    second = Entry("second", "pose", "second.safetensors", "1" * 64)
    manifest = update_entry(update_entry(Manifest(tmp_path), POSE), second)
    assert manifest.default_pose == POSE.name
    assert update_entry(manifest, second, default=True).default_pose == "second"
    assert load_manifest(tmp_path).default_pose == "second"
    assert load_manifest(tmp_path).default_detector is None


def test_without_a_file_there_are_no_entries(tmp_path: Path) -> None:
    manifest = load_manifest(tmp_path)
    assert manifest == Manifest(tmp_path)
    with pytest.raises(WeightsError, match="known: none so far"):
        manifest.entry("cpn50")
    with pytest.raises(WeightsError, match=r"manifest\.toml names no default pose"):
        manifest.entry("default")


@pytest.mark.parametrize(
    "text",
    [
        "no toml",
        'weights = "text"',
        '[weights.a]\nkind = "pose"',
        f'[weights.a]\nkind = "hands"\nfile = "a"\nsha256 = "{"0" * 64}"',
        '[weights.a]\nkind = "pose"\nfile = "a"\nsha256 = "0"',
        f'[weights.a]\nkind = "pose"\nfile = "../a"\nsha256 = "{"0" * 64}"',
        f'[weights.a]\nkind = "pose"\nfile = "a"\nsha256 = "{"0" * 64}"\ncolour = "red"',
        f'[weights.a]\nkind = "pose"\nfile = 3\nsha256 = "{"0" * 64}"',
        f'[weights.default]\nkind = "pose"\nfile = "a"\nsha256 = "{"0" * 64}"',
        'default_pose = "absent"',
        f'default_detector = "a"\n[weights.a]\nkind = "pose"\nfile = "a"\nsha256 = "{"0" * 64}"',
    ],
)
def test_bad_manifests_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.toml").write_text(text)
    with pytest.raises(WeightsError, match=r"manifest\.toml"):
        load_manifest(tmp_path)


def test_bad_entries_are_not_written(tmp_path: Path) -> None:
    for entry in (
        Entry("a/b", "pose", "a", "0" * 64),
        Entry("a", "pose", "../a", "0" * 64),
        Entry("a", "pose", "a", "0" * 63),
    ):
        with pytest.raises(WeightsError):
            update_entry(Manifest(tmp_path), entry)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/manifest\.toml"):
        update_entry(Manifest(tmp_path / "file"), POSE)


def test_files_are_found_beside_the_manifest_and_among_the_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPNPOSE_CACHE", str(tmp_path / "cache"))
    manifest = update_entry(update_entry(Manifest(tmp_path / "shipped"), POSE), DETECTOR)
    with pytest.raises(WeightsError, match=r"run 'cpnpose weights download cpn50-256x192'"):
        locate(POSE.name, manifest)
    with pytest.raises(WeightsError, match=r"person-detector\.safetensors.*install cpnpose anew"):
        locate(DETECTOR.name, manifest)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / POSE.file).write_text("downloaded")
    assert locate(POSE.name, manifest) == tmp_path / "cache" / POSE.file
    (tmp_path / "shipped" / POSE.file).write_text("shipped")
    assert locate(POSE.name, manifest) == tmp_path / "shipped" / POSE.file


def test_verify_holds_files_against_their_sum(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert file_sha256(path) == known
    entry = Entry("abc", "pose", "abc", known)
    manifest = update_entry(Manifest(tmp_path), entry)
    assert verify(manifest, entry) == path
    path.write_bytes(b"abd")
    with pytest.raises(WeightsError, match=rf"abc is damaged: sha256 [0-9a-f]+ instead of {known}"):
        verify(manifest, entry)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPNPOSE_CACHE", "/some/where")
    assert cache_folder() == Path("/some/where")
    monkeypatch.delenv("CPNPOSE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/cpnpose/weights")


def test_shipped_weights_need_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CPNPOSE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    manifest = update_entry(Manifest(tmp_path), POSE)
    with pytest.raises(WeightsError, match="set CPNPOSE_CACHE"):
        locate(POSE.name, manifest)
    (tmp_path / POSE.file).write_text("shipped")
    assert locate(POSE.name, manifest) == tmp_path / POSE.file


def test_add_takes_its_fields_from_the_file(tmp_path: Path) -> None:
    source, shipped = tmp_path / "run" / "best.safetensors", tmp_path / "weights"
    metadata = WeightsMetadata("cpn50", (256, 192), name="mine", data="some", licence="CC0", metrics={"AP": 1.5})
    save_weights(source, {"a": torch.zeros(2)}, metadata)
    entry = add_weights(load_manifest(shipped), source)
    assert entry == Entry("mine", "pose", "best.safetensors", file_sha256(source), "CC0", "some", {"AP": 1.5})
    assert verify(load_manifest(shipped), load_manifest(shipped).entry("default")) == shipped / "best.safetensors"

    save_weights(source, {"a": torch.ones(2)}, metadata)
    with pytest.raises(OutputError, match=r"another file already; use --overwrite"):
        add_weights(load_manifest(shipped), source)
    add_weights(load_manifest(shipped), source, overwrite=True)
    save_weights(shipped / "best.safetensors", {"a": torch.full((2,), 2.0)}, metadata)
    add_weights(load_manifest(shipped), shipped / "best.safetensors")  # in its place already
    assert verify(load_manifest(shipped), load_manifest(shipped).entry("mine"))

    source = source.rename(source.with_name("far.safetensors"))
    remote = add_weights(load_manifest(shipped), source, name="far", url="https://example.org/best", default=True)
    assert load_manifest(shipped).entry("default") == remote
    assert sorted(p.name for p in shipped.iterdir()) == ["best.safetensors", "manifest.toml"]


def test_what_add_refuses_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    shipped = tmp_path / "weights"
    for number, run in enumerate(("first", "second")):  # every training calls its file the same
        save_weights(
            tmp_path / run / "best.safetensors",
            {"a": torch.full((2,), float(number))},
            WeightsMetadata("cpn50", (256, 192)),
        )
    add_weights(load_manifest(shipped), tmp_path / "first" / "best.safetensors", name="first")
    spaced = (tmp_path / "first" / "best.safetensors").rename(tmp_path / "my net.safetensors")
    second = tmp_path / "second" / "best.safetensors"
    for url in (None, "https://example.org/best"):
        with pytest.raises(OutputError, match=r"best\.safetensors is the file of the weights 'first'; give .* another"):
            add_weights(load_manifest(shipped), second, name="second", url=url, overwrite=True)
    with pytest.raises(WeightsError, match=r"'my net\.safetensors' is no plain file name"):
        add_weights(load_manifest(shipped), spaced, name="spaced")
    assert sorted(path.name for path in shipped.iterdir()) == ["best.safetensors", "manifest.toml"]
    assert verify(load_manifest(shipped), load_manifest(shipped).entry("first"))


def test_the_shipped_manifest_is_whole() -> None:
    manifest = load_manifest()
    assert manifest.folder == shipped_folder()
    for entry in manifest.entries.values():
        if entry.url is None:
            verify(manifest, entry)
            assert (shipped_folder() / entry.file).stat().st_size < 60e6
            assert entry.licence
            assert entry.data
            assert entry.metrics


def test_repository_manifest_is_what_the_writer_writes() -> None:
    text = (Path(__file__).resolve().parents[2] / "weights" / "manifest.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text).keys() <= {"weights", "default_pose", "default_detector"}
