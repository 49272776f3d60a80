"""Files that appear under their final name only when they are whole, and what to say where one cannot be written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cpnpose.errors import OutputError


def write_error(path: Path, error: Exception) -> OutputError:
    """What to tell the user when writing ``path`` failed with ``error``: what, where, and the remedy."""
    number, folder = getattr(error, "errno", None), path.parent
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = f"no space is left on the disk of {folder}. Free some, or choose another place"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"no permission to write into {folder}. Check it, or choose another place"
    elif number in (errno.ENOENT, errno.ENOTDIR):
        reason = f"there is no folder {folder}. Make it first, or choose another place"
    else:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = f"{told}. Choose another place"
    return OutputError(f"cannot write {path}: {reason}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's errors into an :class:`OutputError` about ``path``; a broken pipe passes."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def temporary_path(path: Path) -> Path:
    """A new hidden name in the same folder with the same ending."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(3)}.part{path.suffix}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``; it becomes ``path``, replacing it, when the block ends well.

    The folder is made if need be. If the block raises, nothing is left behind and ``path`` stays as it was. Whatever
    the power does, ``path`` is the old or the new file.

    Raises:
        OutputError: the folder or file cannot be written.
    """
    temporary = temporary_path(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
