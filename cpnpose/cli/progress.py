"""What the user sees of a run, all of it on standard error: a bar, machine-readable lines, or only the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import typer

from cpnpose.cli.say import number_of, say_note
from cpnpose.errors import CpnposeError
from cpnpose.file_name import printable
from cpnpose.pose.types import Poses

ProgressKind = Literal["bar", "json", "none"]
_REPORT_S = 0.5


@dataclass
class Tally:
    """What a run has done so far."""

    frames_in: int = 0
    frames_out: int = 0
    damaged: int = 0
    detections: int = 0
    """People, counted in every frame."""
    most: int = 0
    """Most people in one frame."""
    ids: set[int] = field(default_factory=set)
    tracked: bool = False
    separate: bool = False
    """The frames are pictures of their own: everybody in them is somebody else."""

    def add(self, poses: Poses) -> None:
        """Count the people of a frame that has been put out."""
        self.frames_out += 1
        self.detections += len(poses)
        self.most = max(self.most, len(poses))
        if poses.track_ids is not None:
            self.tracked = True
            self.ids.update(int(identity) for identity in poses.track_ids if identity >= 0)

    @property
    def people(self) -> int:
        """Different people where they have identities, else the most in one frame; all of them in separate pictures."""
        if self.separate:
            return self.detections
        return len(self.ids) if self.tracked else self.most


class Progress:
    """Shows how far a run is. A context manager; call :meth:`update` after each frame.

    Args:
        label: the input's name.
        total: frames to come, or None where nobody knows.
        kind: ``bar`` (only on a terminal), ``json`` (an object per line), ``none``.
        unit: what is counted.
    """

    def __init__(self, label: str, total: int | None, kind: ProgressKind, unit: str = "frame") -> None:
        self.tally = Tally()
        self.details: dict[str, float] = {}
        """Further figures to show, by name."""
        self._label, self._total, self._kind, self._unit = printable(label), total, kind, unit
        self._start = self._last = time.perf_counter()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._kind == "bar" and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
            from rich.text import Text

            class Name(ProgressColumn):
                """Gives way, as the bar does, where the figures need the room."""

                def render(self, task: Task) -> Text:
                    return Text(task.description, no_wrap=True, overflow="ellipsis")

            self._bar = Bar(
                Name(),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.fields[known]}"),
                TextColumn("{task.fields[rate]:.1f} " + f"{self._unit}s/s, " + "{task.fields[people]} people"),
                TextColumn("{task.fields[details]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                self._label,
                total=self._total,
                rate=0.0,
                people=0,
                known="?" if self._total is None else self._total,
                details="",
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    def restart_clock(self) -> None:
        """Measure from here: what was done so far was done by an earlier run."""
        self._start = time.perf_counter()

    def update(self) -> None:
        """Show the tally, a few times a second at most."""
        now = time.perf_counter()
        if now - self._last < _REPORT_S:
            return
        self._last = now
        tally, rate = self.tally, self.tally.frames_out / max(self.seconds, 1e-9)
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=tally.frames_out,
                rate=rate,
                people=tally.people,
                details=", ".join(f"{name} {value:g}" for name, value in self.details.items()),
            )
        elif self._kind == "json":
            left = None if self._total is None or rate == 0 else max(0.0, (self._total - tally.frames_out) / rate)
            self._object(
                event="progress",
                input=self._label,
                frames=tally.frames_out,
                total=self._total,
                people=tally.people,
                frames_per_s=round(rate, 2),
                left_s=None if left is None else round(left, 1),
                **self.details,
            )

    def say(self, text: str) -> None:
        """A note for the user, in plain words."""
        text = printable(text)
        line = f"cpnpose: {self._label}: {text}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        elif self._kind == "json":
            self._object(event="note", input=self._label, text=text)
        elif self._kind == "bar":
            typer.echo(line, err=True)

    def say_error(self, error: CpnposeError) -> None:
        """One of the inputs failed, and the others go on: told whatever is shown else. It names the file."""
        if self._kind == "json":
            self._object(event="note", input=self._label, text=printable(str(error)))
        elif self._bar is not None:
            self._bar.console.print(f"cpnpose: {printable(str(error))}", markup=False, highlight=False)
        else:
            say_note(str(error))

    def end(self, results: list[str], *, interrupted: bool = False) -> None:
        """The last line: frames in and out, people, time, frames/s; loudly where frames in and out differ."""
        results = [printable(name) for name in results]
        tally, seconds = self.tally, self.seconds
        rate = tally.frames_out / max(seconds, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=tally.frames_out, rate=rate, people=tally.people)
            self._bar.stop()
            self._bar = None
        if self._kind == "json":
            self._object(
                event="end",
                input=self._label,
                results=results,
                frames_in=tally.frames_in,
                frames_out=tally.frames_out,
                damaged=tally.damaged,
                people=tally.people,
                detections=tally.detections,
                seconds=round(seconds, 3),
                frames_per_s=round(rate, 2),
                interrupted=interrupted,
                **self.details,
            )
            return
        if self._kind == "none":
            return
        unit = self._unit
        equal = tally.frames_in == tally.frames_out
        line = f"{number_of(tally.frames_in, unit)} in {'=' if equal else '≠'} {number_of(tally.frames_out, unit)} out"
        line += f", {tally.people} {'person' if tally.people == 1 else 'people'}, {seconds:.1f} s, {rate:.1f} {unit}s/s"
        if tally.damaged:
            line += f", {tally.damaged} damaged"
        line += "".join(f", {name.replace('_', ' ')} {value:g}" for name, value in self.details.items())
        if interrupted:
            line += ", interrupted"
        elif not equal:
            missing = abs(tally.frames_in - tally.frames_out)
            line += f" -- WARNING: {number_of(missing, unit)} missing from the result"
        where = f" -> {', '.join(results)}" if results else " -- nothing was written" if interrupted else ""
        typer.echo(f"{self._label}: {line}{where}", err=True)

    def _object(self, **values: Any) -> None:
        _say_object(**values)


def say_notes(notes: Iterable[str], kind: ProgressKind) -> None:
    """Notes of a run that are of no single input, before its progress is shown."""
    for text in notes:
        if kind == "json":
            _say_object(event="note", input=None, text=printable(text))
        elif kind == "bar":
            say_note(text)


def _say_object(**values: Any) -> None:
    typer.echo(json.dumps(values), err=True)  # ASCII: whole JSON in any encoding of a pipe
