"""Files that appear under their final name only when they are whole, and what to say where one cannot be written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cpnpose.errors import OutputError

if sys.platform != "win32":
    import fcntl

_STEM = 40
"""Characters of a name in its temporary one, which is longer and must fit where the name does."""


def write_error(path: Path, error: Exception) -> OutputError:
    """What to tell the user when writing ``path`` failed with ``error``: what, where, and the remedy."""
    number, folder = getattr(error, "errno", None), path.parent
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = f"no space is left on the disk of {folder}. Free some, or choose another place"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"no permission to write into {folder}. Check it, or choose another place"
    elif number == errno.ENAMETOOLONG:
        reason = "the name is too long. Give a shorter one with --out"
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


def refuse_device(path: Path) -> None:
    """Raises:
    OutputError: ``path`` is a device or a pipe: a file that appears when it is whole would stand in its place."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OutputError(f"{path} is a device or a pipe, which is never replaced by a result; give the name of a file")


def refuse_new(path: Path, overwrite: bool) -> None:
    """Raises:
    OutputError: ``path``, which did not exist when the run began, exists now and ``overwrite`` is not set."""
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} was created by somebody else in the meantime. Use --overwrite to replace it, or choose another "
            "name with --out"
        )


def lock(stream: IO[bytes]) -> bool:
    """Whether nobody else who locks it, too, has the open file; from now on, none can until ``stream`` is closed or
    its process dies. Always so on Windows, and where the disk knows no locks."""
    if sys.platform != "win32":
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def temporary_path(path: Path) -> Path:
    """A new hidden name in the same folder with the same ending; it tells the process that writes."""
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(3)}"
    return path.with_name(f".{path.stem[:_STEM]}.{writer}.part{path.suffix}")


def remove_stale(path: Path) -> None:
    """Remove what processes of this machine that were killed have left under temporary names of ``path``.

    Files of processes that live, or of other machines that share the folder, stay. On Windows, where one cannot ask
    without harm whether a process lives, everything stays.
    """
    if sys.platform == "win32":
        return
    pattern = re.compile(
        re.escape(f".{path.stem[:_STEM]}.{_machine()}-") + r"(\d+)-[0-9a-f]{6}" + re.escape(f".part{path.suffix}")
    )
    with suppress(OSError):  # a folder that cannot be read is told when the file is written
        for entry in os.scandir(path.parent):
            match = pattern.fullmatch(entry.name)
            if match is None or _lives(int(match[1])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _machine() -> str:
    """Eight characters that differ between machines, and between containers of one machine that number their processes
    each for itself."""
    name = socket.gethostname()
    with suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(name.encode()):08x}"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # it is somebody else's, or cannot be asked about
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``; it becomes ``path``, replacing it, when the block ends well.

    The folder is made if need be. If the block raises, nothing is left behind and ``path`` stays as it was. Whatever
    the power does, ``path`` is the old or the new file.

    Raises:
        OutputError: the folder or file cannot be written, or is a device.
    """
    refuse_device(path)
    remove_stale(path)
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
