"""What the commands on records share: the argument, the names of results, and writing our own formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpnpose.cli.say import record_output
from cpnpose.errors import OptionError, OutputError

if TYPE_CHECKING:
    from cpnpose.formats import Header
    from cpnpose.pose.types import FrameResult

Record = Annotated[
    Path, typer.Argument(help="A record: .jsonl or .json, made by --jsonl or --json.", show_default=False)
]
Person = Annotated[
    str | None,
    typer.Option(
        "--person",
        help="Only this one of the whole clip: largest, longest, center, id:N. The others are not in the result.",
    ),
]
STDOUT = "-"


def open_record(record: Path, person: str | None = None) -> tuple[Header, Iterable[FrameResult], int]:
    """Header and frames of a record, with everybody or only one person (then the header's settings say who was chosen),
    and how many other ids are left out.

    Raises:
        InputError: it cannot be read, or ``person`` is not in it.
        OptionError: ``person`` is none of largest, longest, center, id:N.
    """
    from cpnpose.formats import read_record

    header, frames = read_record(record)
    if person is None:
        return header, frames, 0
    if header.kind == "images":
        raise OptionError("--person follows somebody over time, which a record of images does not have; leave it out")
    from cpnpose.pipeline.person import check_choice, only_person, person_statistics

    how = f"id:{person}" if person.isdigit() else person
    check_choice(how)  # before all frames are read
    statistics = person_statistics(frames, header.size)
    chosen = statistics.choose(how)
    header = replace(header, settings={**header.settings, "person": how})
    return header, only_person(read_record(record)[1], chosen), len(statistics.people) - 1


def check_target(record: Path, target: str | Path, kind: str) -> None:
    """Check the name of a file that is made of a record.

    Raises:
        OptionError: it is ``-``, but ``kind`` is not written to standard output.
        OutputError: it is the record that is read, or stands under its name while it is written.
    """
    from cpnpose.formats.jsonl_record import partial_path

    if str(target) == STDOUT:
        raise OptionError(f"--out - writes JSON Lines (convert --to jsonl); {kind} needs a file name")
    for path in (Path(target), partial_path(target)):
        if path.resolve() == record.resolve():
            raise OutputError(f"{path} is the record that is read; choose another name than {target} with --out")


class CountedFrames:
    """Frames that pass through, counted."""

    def __init__(self, frames: Iterable[FrameResult]) -> None:
        self._frames = frames
        self.count = 0

    def __iter__(self) -> Iterator[FrameResult]:
        for result in self._frames:
            self.count += 1
            yield result


def count_frames(frames: Iterable[FrameResult]) -> CountedFrames:
    """``frames``, with their number in ``count`` when they are through."""
    return CountedFrames(frames)


def record_stem(record: Path) -> str:
    """The record's name without ``.jsonl``, ``.json`` and the ``.partial`` of an unfinished run."""
    return record.stem.removesuffix(".partial")


def write_data(
    record: Path,
    target: str,
    header: Header,
    frames: Iterable[FrameResult],
    *,
    kind: str | None = None,
    angles: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Write ``frames`` as JSON, JSON Lines or CSV.

    Args:
        record: where the frames come from; it is never overwritten.
        target: the file, or ``-`` for JSON Lines to standard output.
        header: of the record that is written.
        frames: its frames.
        kind: ``json``, ``jsonl`` or ``csv``; None goes by the ending of ``target``.
        angles: add joint angles.
        overwrite: replace an existing file.

    Returns:
        What was written.

    Raises:
        OptionError: no such kind.
        OutputError: the target is the record, exists, or cannot be written.
    """
    from cpnpose.formats import CsvWriter, JsonlWriter, JsonWriter

    if angles and "angles" not in header.extras:
        header = replace(header, extras=(*header.extras, "angles"))
    kind = kind or ("jsonl" if target == STDOUT else Path(target).suffix.lower().removeprefix("."))
    if target == STDOUT and kind == "jsonl":
        writer: JsonlWriter | JsonWriter | CsvWriter = JsonlWriter(record_output(), header)
    else:
        check_target(record, target, kind)
        writers = {"json": JsonWriter, "jsonl": JsonlWriter, "ndjson": JsonlWriter, "csv": CsvWriter}
        if kind not in writers:
            raise OptionError(f"--out {target}: the name has to end in .json, .jsonl or .csv")
        writer = writers[kind](target, header, overwrite=overwrite)
    with writer:
        try:
            for result in frames:
                writer.write(result)
        except BaseException:
            writer.discard()  # quickly done again, so no part of it is kept
            raise
    return [target]
