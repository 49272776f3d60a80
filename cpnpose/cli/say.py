"""What commands say on standard error, each kind of line in one wording; and standard output for records."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO

import typer

from cpnpose.errors import CpnposeError
from cpnpose.file_name import printable


def number_of(count: int, thing: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def record_output() -> TextIO | None:
    """Standard output for records: in UTF-8, where Windows gives a pipe the encoding of the country; None if closed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return sys.stdout


def say_error(error: CpnposeError) -> None:
    """Tell an error that a user can mend, in one line."""
    typer.echo(f"cpnpose: error: {printable(str(error))}", err=True)


def say_note(text: str) -> None:
    """Tell what a user should know of a run, in one line."""
    typer.echo(f"cpnpose: {printable(text)}", err=True)


def say_written(frames: int, results: Iterable[object], left_out: int = 0) -> None:
    """The last line of the commands on records: how many frames went where, and how many people are not in them."""
    others = f" ({left_out} other {'person was' if left_out == 1 else 'people were'} left out)" if left_out else ""
    typer.echo(f"cpnpose: {number_of(frames, 'frame')} -> {printable(', '.join(map(str, results)))}{others}", err=True)


def partly_done(failed: int, total: int, thing: str) -> str:
    """The message of a run in which some inputs could not be read."""
    done = "the others are done" if failed < total else "check the paths"
    return f"{failed} of {number_of(total, thing)} could not be read; {done}"


class LastingStderr:
    """Standard error that outlives its reader: where the terminal was closed, or nobody reads the pipe any more, what
    is said is lost, and not the run with its results."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As that of a text stream."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As that of a text stream."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
