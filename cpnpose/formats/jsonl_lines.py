"""Reading a JSON Lines record, whole or torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cpnpose.errors import InputError
from cpnpose.formats.frame_record import parse_frame
from cpnpose.formats.header import Header
from cpnpose.pose.types import FrameResult


@dataclass(frozen=True)
class Line:
    """One whole line of a record."""

    number: int
    """Counted from 1."""
    end: int
    """Offset in bytes of what follows the line."""
    terminated: bool
    """Whether a line feed ends it; False can only be the last line."""
    entry: dict[str, Any]


def whole_lines(path: Path) -> Iterator[Line]:
    """The lines of a JSON Lines file in constant memory, without a last line that was torn.

    Raises:
        InputError: the file cannot be read, or a line before the last is no JSON object.
    """
    end = 0
    try:
        with open(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                end += len(raw)
                if not raw.strip():
                    continue
                try:
                    entry = json.loads(raw)
                    if not isinstance(entry, dict):
                        raise ValueError("no object")
                except ValueError as error:
                    if not stream.read(1):
                        return
                    raise InputError(
                        f"{path} line {number} is no JSON object ({error}). Make the record again"
                    ) from error
                yield Line(number, end, raw.endswith(b"\n"), entry)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_jsonl(path: Path) -> tuple[Header, Iterator[FrameResult]]:
    """Header and frames of a JSON Lines record, whole or partial; see :func:`cpnpose.formats.read_record`."""
    head = next(whole_lines(path), None)
    if head is None:
        raise InputError(f"{path}: empty record. Make the record again")
    header = Header.from_dict(head.entry, str(path))

    def frames() -> Iterator[FrameResult]:
        for line in islice(whole_lines(path), 1, None):
            yield parse_frame(line.entry, header, f"{path} line {line.number}")

    return header, frames()
