"""Checks of the results' names before any work is done: nothing is overwritten by mistake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cpnpose.cli.outputs import Outputs
from cpnpose.errors import OutputError
from cpnpose.whole_file import refuse_device


def refuse(outputs: Outputs, inputs: Sequence[str], *, overwrite: bool, resume: bool = False) -> None:
    """Check the outputs before any work is done.

    Raises:
        OutputError: an output exists (without ``overwrite``), is an input or a device, or lies in a folder that does
            not exist. A folder for images may exist if nothing is in it. With ``resume``, outputs of the run whose
            record is there may exist.
        OSError: the name of an output is too long.
    """
    from cpnpose.formats.jsonl_record import is_begun

    refuse_inputs(outputs.paths, [source for source in inputs if "://" not in source])
    resume = resume and outputs.jsonl is not None and is_begun(outputs.jsonl)
    for path in outputs.paths:
        refuse_device(path)
        free = not path.exists() or (path == outputs.picture and _is_empty_folder(path))
        if not free and not overwrite and not resume:
            raise OutputError(f"{path} exists already; use --overwrite to replace it, or another name with --out")
        if not path.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent}; make it first, or choose another with --out")


def refuse_inputs(targets: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raises:
    OutputError: one of ``targets`` is one of the files ``inputs``."""
    sources = {Path(source).resolve() for source in inputs}
    for path in targets:
        if path.resolve() in sources:
            raise OutputError(f"{path} is the input, which is never overwritten; choose another name with --out")


def check_reports(reports: Mapping[str, Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Check where figures go, before the work of hours. A report that exists is replaced.

    Args:
        reports: files to write, by the options that name them; None is not wanted.
        inputs: files that are read, and names that are no files.

    Raises:
        OutputError: a report is an input, a folder, a device, or named twice.
    """
    taken = {Path(source).resolve() for source in inputs if source is not None and Path(source).is_file()}
    seen: set[Path] = set()
    for option, path in reports.items():
        if path is None:
            continue
        refuse_device(path)
        if path.is_dir():
            raise OutputError(f"{option} {path} is a folder; give the name of a file")
        if path.resolve() in taken:
            raise OutputError(f"{option} {path} is an input, which is never overwritten; choose another name")
        if path.resolve() in seen:
            raise OutputError(f"{option} {path} is the name of another result, too; choose another name")
        seen.add(path.resolve())


def _is_empty_folder(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except OSError:  # no folder, or one that may not be looked into
        return False
