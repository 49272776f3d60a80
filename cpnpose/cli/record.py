"""Commands that work on records, without the networks: ``convert``, ``track``, ``smooth`` and ``render``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cpnpose.cli import record_motion, record_render
from cpnpose.cli.effects import refuse_idle
from cpnpose.cli.pipeline_arguments import Overwrite, Quiet
from cpnpose.cli.record_files import (
    Person,
    Record,
    check_target,
    count_frames,
    open_record,
    record_stem,
    write_data,
)
from cpnpose.cli.say import say_written
from cpnpose.errors import OptionError


class Format(StrEnum):
    """Values of ``--to``."""

    COCO = "coco"
    OPENPOSE = "openpose"
    MMPOSE = "mmpose"
    ALPHAPOSE = "alphapose"
    DEEPLABCUT = "deeplabcut"
    SLEAP = "sleap"
    MOT = "mot"
    VIDEOPOSE3D = "videopose3d"
    TRC = "trc"
    C3D = "c3d"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class Layout(StrEnum):
    """Values of ``--layout``."""

    COCO = "COCO"
    BODY_25 = "BODY_25"


DEFAULT_NAMES = {
    Format.COCO: "{}_coco.json",
    Format.OPENPOSE: "{}_openpose",
    Format.MMPOSE: "{}_mmpose.json",
    Format.ALPHAPOSE: "{}_alphapose.json",
    Format.DEEPLABCUT: "{}_deeplabcut.csv",
    Format.SLEAP: "{}_sleap.csv",
    Format.MOT: "{}_mot.txt",
    Format.VIDEOPOSE3D: "data_2d_custom_{}.npz",
    Format.TRC: "{}.trc",
    Format.C3D: "{}.c3d",
    Format.JSON: "{}.json",
    Format.JSONL: "{}.jsonl",
    Format.CSV: "{}.csv",
}
"""Names beside the record; {} is its stem."""
OWN = (Format.JSON, Format.JSONL, Format.CSV)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("convert")(convert)
    record_motion.register(app)
    record_render.register(app)


def convert(
    record: Record,
    to: Annotated[Format, typer.Option("--to", help="The format.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="File (for openpose: folder) to write; else beside the record.")
    ] = None,
    person: Person = None,
    layout: Annotated[Layout, typer.Option("--layout", help="Points of the openpose format.")] = Layout.COCO,
    angles: Annotated[bool, typer.Option("--angles", help="Add joint angles in degrees (json, jsonl, csv).")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a record (.json or .jsonl) in another program's format.

    Formats that follow people over time (deeplabcut, videopose3d, trc, c3d) need track ids; trc and c3d give one file
    per person.
    """
    if angles and to not in OWN:
        raise OptionError(f"--angles goes with {', '.join(OWN)}; {to} has no place for them")
    ending = Path(out or "").suffix.lower().removeprefix(".")
    if to in OWN and ending in OWN and ending != to:
        raise OptionError(f"--out {out} is the name of a {ending} file, and --to {to} is another format; change one")
    if to is not Format.OPENPOSE:
        refuse_idle({"--layout": layout is not Layout.COCO}, f"{to} has one layout only; leave it out")
    header, frames, others = open_record(record, person)
    target = out or str(record.with_name(DEFAULT_NAMES[to].format(record_stem(record))))
    counted = count_frames(frames)
    if to in OWN:
        written = write_data(record, target, header, counted, kind=to, angles=angles, overwrite=overwrite)
    else:
        check_target(record, target, to)
        options: dict[str, Any] = {"overwrite": overwrite}
        if to is Format.OPENPOSE:
            options["layout"] = str(layout)
        written = _writer(to)(header, counted, Path(target), **options) or [target]
    if not quiet:
        say_written(counted.count, written, others)


def _writer(to: Format) -> Any:
    import importlib

    return getattr(importlib.import_module(f"cpnpose.formats.{to}"), f"write_{to}")
