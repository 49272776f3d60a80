"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from cpnpose.errors import OutputError


def check_output(path: Path, source: str | Path | None, overwrite: bool) -> None:
    """Raise :class:`OutputError` unless a file may be written at ``path``: its folder is there and writable, it is not
    the input itself, and it does not exist yet or may be replaced."""
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


def temporary_path(path: Path) -> Path:
    """A new hidden name in the same folder with the same ending."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(3)}.part{path.suffix}")


def publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a finished file its final name in one step. Raises :class:`OutputError`; the temporary file is then gone."""
    try:
        if not overwrite and path.exists():
            raise OutputError(f"{path}: was created by somebody else in the meantime. Use --overwrite to replace it.")
        os.replace(temporary, path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def output_error(path: Path, error: Exception) -> OutputError:
    """What to tell the user when writing ``path`` failed with ``error``."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"{path}: the disk is full. Free some space or choose another folder.")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: may not be written. Check the folder's permissions or choose another one.")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OutputError(f"{path}: could not be written ({reason}). Nothing was left behind.")
