"""Where a picture or video may be written, and giving it its final name."""

from __future__ import annotations

import os
from pathlib import Path

from cpnpose.errors import OutputError
from cpnpose.whole_file import refuse_device, refuse_new, writing


def check_output(path: Path, source: str | Path | None, overwrite: bool) -> None:
    """Raise :class:`OutputError` unless a file may be written at ``path``: its folder is there and writable, it is not
    the input itself, no device, and it does not exist yet or may be replaced."""
    refuse_device(path)
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Give the name of a file.")
    if not folder.is_dir():
        raise OutputError(f"{path}: the folder {folder} does not exist. Create it first.")
    if path.exists():
        if source is not None and os.path.exists(source) and os.path.samefile(path, source):
            raise OutputError(f"{path}: is the input, which is never overwritten. Choose another name.")
        if not overwrite:
            raise OutputError(f"{path}: exists already. Use --overwrite to replace it, or choose another name.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} may not be written to. Choose another folder.")


def publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a finished file its final name in one step. Raises :class:`OutputError`; the temporary file is then gone."""
    try:
        refuse_new(path, overwrite)
        with writing(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
