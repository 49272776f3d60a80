from __future__ import annotations

import os

import pytest

from cpnpose.errors import OutputError
from cpnpose.formats import output_file
from cpnpose.formats.output_file import OutputFile, output_folder
from cpnpose.media.atomic import check_output
from cpnpose.whole_file import whole_file


@pytest.fixture
def full_disk(monkeypatch):
    """The next file goes to a disk that is full."""

    def temporary(path):
        made = path.with_name(f".{path.name}.part")
        made.symlink_to("/dev/full")
        return made

    monkeypatch.setattr(output_file, "temporary_path", temporary)


def test_missing_folder(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        OutputFile(tmp_path / "no" / "out.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path, overwrite):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is a device or a pipe"):
        OutputFile(tmp_path / "pipe", overwrite=overwrite)
    with pytest.raises(OutputError, match="is a device or a pipe"), whole_file(tmp_path / "pipe"):
        pass
    with pytest.raises(OutputError, match="is a device or a pipe"):
        check_output(tmp_path / "pipe", None, overwrite)
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        OutputFile(tmp_path, overwrite=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk_leaves_nothing(tmp_path, full_disk):
    path = tmp_path / "out.json"

    def fill():
        with OutputFile(path) as file:
            file.write(b"x" * 100_000)

    with pytest.raises(OutputError, match="no space is left"):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_disk_that_is_full_at_the_very_end(tmp_path, full_disk):
    path = tmp_path / "out.json"

    def fill():
        with OutputFile(path) as file:
            file.write(b"x")

    with pytest.raises(OutputError):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_folder_appears_whole(tmp_path):
    path = tmp_path / "out"
    with output_folder(path, "*.json") as folder:
        (folder / "a.json").write_text("1")
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["a.json"]
    assert list(tmp_path.iterdir()) == [path]


def test_folder_does_not_appear_after_an_error(tmp_path):
    def fail():
        with output_folder(tmp_path / "out", "*.json") as folder:
            (folder / "a.json").write_text("1")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_folder_is_replaced_only_on_request_and_only_if_it_is_ours(tmp_path):
    def make(overwrite):
        with output_folder(tmp_path / "out", "*.json", overwrite=overwrite) as folder:
            (folder / "b.json").write_text("2")

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_text("1")
    with pytest.raises(OutputError, match="--overwrite"):
        make(overwrite=False)
    make(overwrite=True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.json"]
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="holds more than"):
        make(overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_runs_into_one_name_the_later_says_so(tmp_path, overwrite):
    path, folder = tmp_path / "out.json", tmp_path / "out"

    def both():
        with OutputFile(path, overwrite=overwrite) as later:
            later.write(b"later")
            path.write_bytes(b"earlier")

    def both_folders():
        with output_folder(folder, "*.json", overwrite=overwrite) as later:
            (later / "later.json").touch()
            folder.mkdir()
            (folder / "earlier.json").touch()

    if overwrite:
        both()
        both_folders()
    else:
        for run in (both, both_folders):
            with pytest.raises(OutputError, match="in the meantime"):
                run()
    kept = "later" if overwrite else "earlier"
    assert path.read_text() == kept
    assert sorted(file.name for file in tmp_path.rglob("*")) == sorted(["out", "out.json", f"{kept}.json"])


def test_ctrl_c_leaves_no_half_file_and_keeps_an_older_one(tmp_path):
    path = tmp_path / "out.json"
    for before in (None, b"whole"):
        if before is not None:
            path.write_bytes(before)

        def stopped():
            with OutputFile(path, overwrite=True) as file:
                file.write(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stopped()
        assert (path.read_bytes() if path.exists() else None) == before
        assert len(list(tmp_path.iterdir())) == (before is not None)
