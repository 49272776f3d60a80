"""All data files of a run behind one ``write``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

from cpnpose.cli.outputs import Outputs
from cpnpose.cli.say import record_output
from cpnpose.formats import CsvWriter, Header, JsonlWriter, JsonWriter
from cpnpose.formats.jsonl_record import partial_path
from cpnpose.pose.types import FrameResult


class DataSinks:
    """Context manager that writes each frame to every data file that is wanted.

    Args:
        outputs: which files.
        header: what the records say about themselves.
        overwrite: replace existing files.
        resume: go on with the JSON Lines record of an earlier run; the other files are made anew.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(self, outputs: Outputs, header: Header, *, overwrite: bool = False, resume: bool = False) -> None:
        self._outputs = outputs
        self._stack = ExitStack()
        self._record: JsonlWriter | None = None
        self._others: list[JsonWriter | CsvWriter | JsonlWriter] = []
        self.frames_written = 0
        with ExitStack() as opened:
            if outputs.jsonl is not None:
                writer = JsonlWriter(outputs.jsonl, header, overwrite=overwrite, resume=resume)
                self._record = opened.enter_context(writer)
            replace = overwrite or resume
            if outputs.json is not None:
                self._others.append(opened.enter_context(JsonWriter(outputs.json, header, overwrite=replace)))
            if outputs.csv is not None:
                self._others.append(opened.enter_context(CsvWriter(outputs.csv, header, overwrite=replace)))
            if outputs.stdout:
                self._others.append(opened.enter_context(JsonlWriter(record_output(), header)))
            self._stack = opened.pop_all()

    @property
    def done(self) -> int:
        """Frames that an earlier run has recorded."""
        point = self._record.resume_point if self._record is not None else None
        return point.frames if point is not None else 0

    @property
    def kept_partial(self) -> bool:
        """Whether a JSON Lines record is kept when the run is ended here, under its partial name."""
        return self._record is not None and self._record.frames_written > 0

    def results(self, *, drawn: bool, interrupted: bool = False) -> list[str]:
        """Names of the results that are there once this is left, by the end of the run or (``interrupted``) by Ctrl-C.

        ``drawn``: a picture was written to the video or folder of the outputs.
        """
        outputs = self._outputs
        record = outputs.jsonl
        if record is not None and interrupted:
            record = partial_path(record) if self.kept_partial else None
        paths = (outputs.picture if drawn else None, outputs.json, record, outputs.csv)
        names = [str(path) for path in paths if path is not None]
        return [*names, "standard output"] if outputs.stdout else names

    def recorded(self) -> Iterator[FrameResult]:
        """The frames that an earlier run has recorded; give each to :meth:`repeat`."""
        if self._record is not None:
            yield from self._record.recorded()

    def repeat(self, result: FrameResult) -> None:
        """Write a frame that the record holds already to the other files."""
        for writer in self._others:
            writer.write(result)
        self.frames_written += 1

    def write(self, result: FrameResult, file: str | None = None) -> None:
        """Write a frame to all files; ``file`` names the image in a set of images."""
        if self._record is not None:
            self._record.write(result, file)
        for writer in self._others:
            writer.write(result, file)
        self.frames_written += 1

    def __enter__(self) -> DataSinks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
