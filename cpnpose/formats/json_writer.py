"""The JSON document: one object, written frame by frame in constant memory.

The header's fields come first, then ``frames``, one frame per line, then ``frames_written`` and ``complete`` (false
where Ctrl-C ended the run early). ``schema.json`` beside this module is its JSON Schema;
:func:`cpnpose.formats.read_record` reads it back.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from cpnpose.formats.frame_record import frame_text
from cpnpose.formats.header import Header, header_text
from cpnpose.formats.output_file import OutputFile
from cpnpose.pose.types import FrameResult


class JsonWriter:
    """Context manager that writes the JSON document.

    The file takes its name at the end of the block. After Ctrl-C it does too, valid up to the last whole frame and with
    ``"complete": false``; after any other error nothing is left.

    Args:
        path: the file to be written.
        header: what the record says about itself.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists, the disk is full, the folder cannot be written.
    """

    def __init__(self, path: Path | str, header: Header, *, overwrite: bool = False) -> None:
        self.header = header
        self.frames_written = 0
        self._file = OutputFile(path, overwrite=overwrite)
        try:
            self._file.write(f'{header_text(header)[:-1]}, "frames": ['.encode())
        except BaseException:
            self._file.discard()
            raise

    def write(self, result: FrameResult, file: str | None = None) -> None:
        """Append one frame, with or without people. ``file`` names the image in a record of images."""
        separator = ",\n" if self.frames_written else "\n"
        self._file.write((separator + frame_text(result, self.header, file)).encode())
        self.frames_written += 1

    def close(self, *, complete: bool = True) -> None:
        """End the document and give the file its name. A second call does nothing."""
        ending = json.dumps({"frames_written": self.frames_written, "complete": complete})[1:]
        self._file.commit(f"\n], {ending}\n".encode())

    def abort(self) -> None:
        """As :meth:`close`, for a run that was ended early: the document is valid up to here."""
        self.close(complete=False)

    def discard(self) -> None:
        """Leave no file."""
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt):
            self.abort()
        else:
            self.discard()
