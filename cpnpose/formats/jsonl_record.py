"""The JSON Lines record: append-only, flushed frame by frame, resumable.

The first line is the header, each further line one frame, as in the JSON document. While a run goes on the record
stands beside its final name as ``NAME.partial.jsonl``; it takes the final name when the run is through. After a crash,
Ctrl-C or ``kill -9`` the partial record holds every frame that was written; a last line that was torn is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TextIO

from cpnpose.errors import OutputError
from cpnpose.formats.frame_record import frame_text, parse_frame
from cpnpose.formats.header import Header, header_text
from cpnpose.formats.jsonl_lines import whole_lines
from cpnpose.formats.output_file import refuse_existing
from cpnpose.pose.types import FrameResult
from cpnpose.whole_file import lock, writing


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted record ends."""

    index: int
    """``frame.index`` of the last whole frame."""
    pts: int
    time_s: float
    frames: int
    """Number of whole frames in the record."""


def partial_path(path: Path | str) -> Path:
    """Where the record of ``path`` stands while it is written: ``out.jsonl`` -> ``out.partial.jsonl``."""
    path = Path(path)
    return path.with_name(f"{path.stem}.partial{path.suffix or '.jsonl'}")


def is_begun(path: Path) -> bool:
    """Whether the record ``path`` is there, whole or partial."""
    return path.exists() or partial_path(path).exists()


class JsonlWriter:
    """Context manager that writes the record.

    After an error or Ctrl-C the partial record stays for ``resume=True``, unless it holds no frame. A record that is
    through can be resumed as well: nothing is missing then, and it takes its name again at the end.

    Args:
        target: the file to be written, or a text stream (standard output), which is flushed frame by frame and
            never closed; None is one that is not open, as Python has it.
        header: what the record says about itself.
        overwrite: replace an existing record, partial ones too.
        resume: go on with the partial record, if there is one.

    Attributes:
        resume_point: where the record that is resumed ends, or None for a new record (or one without a frame).

    Raises:
        OutputError: the record exists, is being written by another run, was made from another source or with other
            settings, or cannot be written.
        InputError: the record to be resumed is damaged before its last line.
    """

    def __init__(
        self, target: Path | str | TextIO | None, header: Header, *, overwrite: bool = False, resume: bool = False
    ) -> None:
        self.header = header
        self.resume_point: ResumePoint | None = None
        self.frames_written = 0
        """Frames in the record, those of the earlier run included."""
        self._text: TextIO | None = None
        self._binary: IO[bytes] | None = None
        self._end = 0
        if target is None:
            raise OutputError("standard output is closed; open it, or give the name of a file")
        if not isinstance(target, (str, Path)):
            self._text = target
            self._append(header_text(header))
            return
        self.path = Path(target)
        self.partial = partial_path(self.path)
        if resume:
            self._resume()
        else:
            self._start(overwrite)

    def write(self, result: FrameResult, file: str | None = None) -> None:
        """Append one frame, with or without people, and flush it. ``file`` names the image in a record of images."""
        self._append(frame_text(result, self.header, file))
        self.frames_written += 1

    def recorded(self) -> Iterator[FrameResult]:
        """The frames of the earlier run, in order: nothing for a new record. Other outputs are rebuilt from them."""
        if self.resume_point is None:
            return
        record = self.path if self._binary is None else self.partial
        for line in islice(whole_lines(record), 1, self.resume_point.frames + 1):
            yield parse_frame(line.entry, self.header, f"{record} line {line.number}")

    def close(self) -> None:
        """The record is whole: it takes its final name. A second call does nothing."""
        stream, self._binary = self._binary, None
        if stream is not None:
            with writing(self.path):
                stream.close()
                os.replace(self.partial, self.path)

    def abort(self) -> None:
        """The run ended early: the partial record is kept for resuming, unless it holds no frame."""
        stream, self._binary = self._binary, None
        if stream is None:
            return
        with suppress(OSError):  # a full disk shows again at close
            stream.close()
        with writing(self.path):
            if self.frames_written == 0:
                self.partial.unlink(missing_ok=True)
            else:
                os.truncate(self.partial, self._end)

    def discard(self) -> None:
        """Leave no partial record."""
        stream, self._binary = self._binary, None
        if stream is not None:
            with suppress(OSError):
                stream.close()
            self.partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OutputError):  # what ended the run is to be told; readers drop a torn last line
            self.abort()

    def _append(self, line: str) -> None:
        if self._text is not None:
            try:
                self._text.write(line + "\n")
                self._text.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(f"cannot write to standard output ({error.strerror}); check where it goes") from error
            return
        if self._binary is None:
            raise ValueError(f"{self.path} is closed")
        data = line.encode() + b"\n"
        with writing(self.path):
            self._binary.write(data)
            self._binary.flush()
        self._end += len(data)

    def _start(self, overwrite: bool) -> None:
        refuse_existing(self.path, overwrite)
        if self.partial.exists() and not overwrite:
            settings = self.header.settings
            whole_clip = any(settings.get(name) for name in ("person", "fill_s", "repair_swaps"))
            resumable = self.header.kind == "video" and not whole_clip
            remedy = (
                "Use `cpnpose video --resume` to go on with it, or" if resumable else "Rename it to keep it, or use"
            )
            raise OutputError(f"{self.partial} holds a run that was not finished. {remedy} --overwrite to start anew")
        self._open("ab", 0)
        try:
            self._append(header_text(self.header))
        except BaseException:
            self.discard()
            raise

    def _resume(self) -> None:
        finished = not self.partial.exists() and self.path.exists()
        record = self.path if finished else self.partial
        lines = whole_lines(record) if record.exists() else iter(())
        head = next(lines, None)
        if head is None:  # nothing there, or killed before the first line was whole
            self._start(overwrite=not finished)
            return
        differences = Header.from_dict(head.entry, str(record)).differences(self.header)
        if differences:
            raise OutputError(
                f"cannot resume {record}: it was made otherwise ({'; '.join(differences[:3])}). "
                "Use the same input and options, or --overwrite in place of --resume to start anew"
            )
        end = head.end
        for line in lines:
            if line.terminated:
                last = parse_frame(line.entry, self.header, f"{record} line {line.number}").frame
                self.frames_written += 1
                self.resume_point = ResumePoint(last.index, last.pts, last.time_s, self.frames_written)
                end = line.end
        if finished:
            with writing(self.path):
                os.replace(self.path, self.partial)
        self._open("r+b", end)

    def _open(self, mode: str, end: int) -> None:
        """The partial record, for this run alone, to go on at byte ``end``."""
        with writing(self.path):
            stream: IO[bytes] = self.partial.open(mode)
            try:
                if not lock(stream):
                    remedy = "Wait for it, or choose another name with --out"
                    raise OutputError(f"{self.partial} is being written by another run. {remedy}")
                if os.fstat(stream.fileno()).st_size != end:
                    stream.truncate(end)
                stream.seek(end)
            except BaseException:
                stream.close()
                raise
        self._binary, self._end = stream, end
