"""``cpnpose report``: a page to look at a record in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpnpose.cli.pipeline_arguments import Overwrite, Quiet
from cpnpose.cli.record_files import Record, check_target
from cpnpose.cli.say import say_written


def register(app: typer.Typer) -> None:
    """Add the command ``report``."""
    app.command("report")(report)


def report(
    record: Record,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML file; else beside the record.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make one HTML page of a record that works offline: who is there when, confidence, trajectories, angles, where
    tracking breaks, and a player for the skeletons."""
    from cpnpose.formats.report import write_report

    target = out or record.with_suffix(".html")
    check_target(record, target, "HTML")
    frames = write_report(record, target, overwrite=overwrite)
    if not quiet:
        say_written(frames, [target])
