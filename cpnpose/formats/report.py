"""The report of a record: one HTML page that holds its data, style and scripts, and loads nothing from anywhere."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from cpnpose.errors import InputError, OptionError
from cpnpose.formats.output_file import OutputFile
from cpnpose.formats.record_reader import read_record
from cpnpose.formats.report_data import gather
from cpnpose.pose.types import FrameResult

PAGE_FOLDER = Path(__file__).with_name("report_page")
SCRIPTS = ("data.js", "charts.js", "player.js", "page.js")


def write_report(record: Path | str, out: Path | str, *, overwrite: bool = False) -> int:
    """Write the report of ``record`` to ``out``.

    Args:
        record: .json or .jsonl, of a video or camera.
        out: the HTML file.
        overwrite: replace an existing file.

    Returns:
        The number of frames in the record.

    Raises:
        InputError: the record cannot be read or has no frames.
        OptionError: it is a record of images, which have no time.
        OutputError: ``out`` exists already or cannot be written.
    """
    header, _ = read_record(record)
    if header.kind == "images":
        raise OptionError(f"{record}: a record of images has no time to report on. Give one of a video")

    def frames() -> Iterator[FrameResult]:
        return read_record(record)[1]

    with OutputFile(out, overwrite=overwrite) as file:
        data = gather(header, frames)
        if not data["frameCount"]:
            raise InputError(f"{record}: a record without frames. Make the record again")
        # "<" as an escape: no text of the record can end the script element.
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        parts = {
            "TITLE": html.escape(f"{header.source}: poses"),
            "STYLE": _part("style.css"),
            "DATA": text,
            "SCRIPT": "\n".join(_part(name) for name in SCRIPTS),
        }
        page = re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], _part("page.html"))
        file.write(page.encode("utf-8"))
    return int(data["frameCount"])


def _part(name: str) -> str:
    return (PAGE_FOLDER / name).read_text(encoding="utf-8")
