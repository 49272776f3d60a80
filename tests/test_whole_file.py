from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpnpose.errors import OutputError
from cpnpose.whole_file import remove_stale, temporary_path, whole_file, writing


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space is left on the disk of .*Free some"),
        (errno.EFBIG, "no space is left"),
        (errno.EACCES, "no permission to write into"),
        (errno.EROFS, "no permission"),
        (errno.ENAMETOOLONG, "the name is too long. Give a shorter one"),
        (errno.ENOENT, "there is no folder .*Make it first"),
        (errno.EIO, r"Input/output error\. Choose another place"),
    ],
)
def test_errors_of_the_system_say_what_where_and_the_remedy(tmp_path: Path, number: int, said: str) -> None:
    path = tmp_path / "out.json"

    def fail() -> None:
        with writing(path):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=said) as caught:
        fail()
    assert f"cannot write {path}: " in str(caught.value)


def test_broken_pipe_passes(tmp_path: Path) -> None:
    def fail() -> None:
        with writing(tmp_path):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        fail()


def test_a_file_appears_when_it_is_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as part:
        part.write_text("first")
        assert (part.parent, part.suffix) == (path.parent, ".txt")
        assert not path.exists()
    assert path.read_text() == "first"
    with whole_file(path) as part:
        part.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_nothing_is_left_of_what_failed(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    def fail() -> None:
        with whole_file(tmp_path / "a.txt") as part:
            part.write_text("x")

    with pytest.raises(OutputError, match=r"cannot write .*a\.txt"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_temporary_names_are_new_and_keep_the_ending() -> None:
    names = {temporary_path(Path("/x/out.mp4")) for _ in range(20)}
    assert len(names) == 20
    assert {(p.parent, p.suffix, p.name[0]) for p in names} == {(Path("/x"), ".mp4", ".")}


def test_names_of_the_greatest_length_are_written(tmp_path: Path) -> None:
    for letter, count in (("b", 251), ("日", 83)):
        path = tmp_path / f"{letter * count}.mp4"
        with whole_file(path) as part:
            part.touch()
        assert path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there everything stays")
def test_what_a_killed_process_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "out [1].mp4"
    code = f"from cpnpose.whole_file import *; p = temporary_path(Path({str(path)!r})); p.touch(); print(p)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; import sys; sys.stdout.flush(); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    left = Path(child.stdout.readline().strip())
    machine, process, token = left.name.split(".")[2].split("-")
    elsewhere = left.with_name(left.name.replace(machine, "00000000"))
    other_output = left.with_name(left.name.replace("out", "out2"))
    no_temporary = left.with_name(left.name.replace(token, "mine"))
    own = temporary_path(path)
    for made in (elsewhere, other_output, no_temporary, own):
        made.touch()
    remove_stale(path)
    assert left.exists()
    child.kill()
    child.communicate()
    assert process == str(child.pid)
    remove_stale(path)
    assert not left.exists()
    assert all(made.exists() for made in (elsewhere, other_output, no_temporary, own))
    left.mkdir()
    (left / "a.json").touch()
    with whole_file(path) as part:
        part.touch()
    assert not left.exists()
    remove_stale(tmp_path / "nowhere" / "a.json")
