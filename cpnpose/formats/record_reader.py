"""Reading records back: the JSON Lines record and the JSON document, frame by frame in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from cpnpose.errors import InputError
from cpnpose.formats.frame_record import parse_frame
from cpnpose.formats.header import Header
from cpnpose.formats.jsonl_lines import read_jsonl
from cpnpose.pose.types import FrameResult

CHUNK = 1 << 16
FRAMES = "frames"
DELIMITERS = frozenset(" \t\r\n,:]}")


def read_record(path: Path | str) -> tuple[Header, Iterator[FrameResult]]:
    """Header and frames of a record that was written by ``--json`` or ``--jsonl``.

    Frames come one at a time, in the order of the file; memory does not grow with their number. Their images are empty
    (0, 0, 3). Frames of a record of images are :class:`cpnpose.formats.ImageResult`. A partial JSON Lines record is
    read up to its last whole line.

    Raises:
        InputError: the file is missing, no record of ours, or damaged (also while the frames are read).
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Give a record made by --json or --jsonl")
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give a record made by --json or --jsonl")
    if path.suffix.lower() == ".json":
        return _read_json(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return read_jsonl(path)
    raise InputError(f"{path}: a record ends in .json or .jsonl. Give a file made by --json or --jsonl")


def _read_json(path: Path) -> tuple[Header, Iterator[FrameResult]]:
    document: dict[str, Any] = {}
    for key, value in _members(path):
        if key == FRAMES and "skeleton" in document:
            break  # our own order of fields: the header stands before the frames
        if key != FRAMES:
            document[key] = value
    header = Header.from_dict(document, str(path))

    def frames() -> Iterator[FrameResult]:
        entries = (value for key, value in _members(path) if key == FRAMES)
        for number, entry in enumerate(entries):
            yield parse_frame(entry, header, f"{path} frame entry {number}")

    return header, frames()


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    """The members of the JSON object in ``path``; those of the array ``frames`` one by one, under its name."""
    try:
        with open(path, encoding="utf-8") as stream:
            scanner = _Scanner(stream)
            scanner.expect("{")
            while scanner.peek() != "}":
                key = scanner.value()
                scanner.expect(":")
                if key == FRAMES:
                    scanner.expect("[")
                    while scanner.peek() != "]":
                        yield FRAMES, scanner.value()
                        scanner.skip_comma("]")
                    scanner.expect("]")
                else:
                    yield key, scanner.value()
                scanner.skip_comma("}")
            scanner.expect("}")
            if scanner.peek():
                raise ValueError("more follows its end")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a whole JSON document ({error}). Make the record again") from error


class _Scanner:
    """Reads JSON values from a text stream with a buffer that holds one value at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer = ""
        self._position = 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            rest = self._buffer[self._position : self._position + 1]
            if rest and not rest.isspace():
                return rest
            if rest:
                self._position += 1
            elif not self._fill(CHUNK):
                return ""

    def expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise ValueError(f"{found or 'the end'!r} stands where {character!r} should be")
        self._position += 1

    def skip_comma(self, closing: str) -> None:
        """Step over a comma, unless ``closing`` is next."""
        if self.peek() != closing:
            self.expect(",")

    def value(self) -> Any:
        """The next value."""
        self.peek()
        wanted = CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except ValueError:
                if not self._fill(wanted):
                    raise
            else:
                # A number that is cut by the end of the buffer may look whole; its delimiter must be there.
                if self._buffer[end : end + 1] in DELIMITERS or not self._fill(wanted):
                    self._position = end
                    return value
            wanted *= 2

    def _fill(self, characters: int) -> bool:
        more = self._stream.read(characters)
        self._buffer = self._buffer[self._position :] + more
        self._position = 0
        return bool(more)
