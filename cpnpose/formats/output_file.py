"""Files of data that are written unit by unit and appear under their final name only when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cpnpose.errors import OutputError
from cpnpose.whole_file import refuse_device, refuse_new, remove_stale, temporary_path, writing


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises:
    OutputError: ``path`` exists and ``overwrite`` is not set, or it is a folder or a device."""
    refuse_device(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder. Choose another name with --out")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already. Use --overwrite to replace it, or choose another name with --out")


class OutputFile:
    """A file that is written under a temporary name beside ``path`` and takes its name at :meth:`commit`.

    ``write`` takes whole units (a frame, a row): after an interruption in the middle of one, the file ends with the
    last whole unit, if it is committed then. As a context manager it commits at the end, and leaves nothing behind
    after an error or Ctrl-C.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, the disk is full, the folder cannot be written.
    """

    def __init__(self, path: Path | str, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        refuse_existing(self.path, overwrite)
        remove_stale(self.path)
        self._temporary = temporary_path(self.path)
        with writing(self.path):
            self._stream: BinaryIO | None = self._temporary.open("wb")
        self._end = 0

    def write(self, data: bytes) -> None:
        """Append one unit."""
        with writing(self.path):
            self.stream.write(data)
        self._end += len(data)

    @property
    def stream(self) -> BinaryIO:
        """The open binary file, for writers that need to seek."""
        if self._stream is None:
            raise ValueError(f"{self.path} is closed")
        return self._stream

    def commit(self, tail: bytes = b"", *, cut: bool = True) -> None:
        """Append ``tail`` and give the file its final name. Nothing happens when it is closed already.

        ``cut`` drops what stands after the last whole ``write``; False for writers that used ``stream``.
        """
        if self._stream is None:
            return
        try:
            with writing(self.path):
                if cut:
                    self._stream.truncate(self._end)
                    self._stream.seek(self._end)
                self._stream.write(tail)
                self._stream.close()
                refuse_new(self.path, self._overwrite)
                os.replace(self._temporary, self.path)
        except BaseException:
            self.discard()
            raise
        self._stream = None

    def discard(self) -> None:
        """Close and remove the temporary file."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            stream.close()
        except OSError:
            pass  # a full disk shows again at close; the file goes anyway
        finally:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


@contextmanager
def output_folder(path: Path | str, pattern: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder that is filled under a temporary name and takes its own when the block ends without error.

    An existing folder is replaced only with ``overwrite``, and only if it holds nothing but files like ``pattern``.

    Raises:
        OutputError: the folder exists, holds other files, or cannot be written.
    """
    path = Path(path)
    if path.exists():
        if not overwrite:
            raise OutputError(
                f"{path} exists already. Use --overwrite to replace it, or choose another name with --out"
            )
        if not path.is_dir() or set(path.iterdir()) - set(path.glob(pattern)):
            raise OutputError(f"{path} holds more than files like {pattern}; it is not replaced. Choose another --out")
    remove_stale(path)
    temporary = temporary_path(path)
    try:
        with writing(path):
            temporary.mkdir()
            yield temporary
            refuse_new(path, overwrite)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
