from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

from cpnpose.cli.interrupt import InterruptAtRest
from cpnpose.cli.progress import Progress, ProgressKind, Tally
from cpnpose.errors import CpnposeError
from cpnpose.pose.types import Poses


def people(count: int, ids: list[int] | None = None) -> Poses:
    one = Poses(
        np.zeros((count, 17, 2), np.float32),
        np.zeros((count, 17), np.float32),
        np.zeros(count, np.float32),
        np.zeros((count, 4), np.float32),
        np.zeros(count, np.float32),
    )
    return one if ids is None else replace(one, track_ids=np.array(ids, np.int64))


def test_people_are_counted_once_each() -> None:
    tally = Tally()
    for ids in ([1, 2], [2, -1], [], [5]):
        tally.add(people(len(ids), ids))
    assert (tally.frames_out, tally.people, tally.detections) == (4, 3, 5)
    untracked = Tally()
    for count in (1, 4, 0):
        untracked.add(people(count))
    assert (untracked.people, untracked.detections) == (4, 5)
    untracked.separate = True
    assert untracked.people == 5


def test_the_last_line_is_loud_where_frames_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for missing in (0, 2):
        with Progress("in.mp4", 3, "bar") as progress:
            progress.tally.frames_in = 3 + missing
            for _ in range(3):
                progress.tally.add(people(1, [1]))
            progress.update()
        progress.end(["out.mp4"])
        line = capsys.readouterr().err
        assert line.startswith("in.mp4: ")
        assert line.rstrip().endswith("-> out.mp4")
        assert ("3 frames in = 3 frames out, 1 person" in line) == (missing == 0)
        assert ("WARNING: 2 frames missing" in line) == (missing == 2)


def test_one_is_no_plural(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("in.png", 1, "bar", unit="image") as progress:
        progress.tally.frames_in = 1
        progress.tally.add(people(1))
    progress.end([])
    assert "in.png: 1 image in = 1 image out, 1 person" in capsys.readouterr().err


def test_machines_get_objects(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpnpose.cli.progress._REPORT_S", 0.0)
    with Progress("in.mp4", 10, "json") as progress:
        progress.details = {"dropped": 2}
        progress.tally.frames_in = 1
        progress.tally.add(people(2))
        progress.update()
        progress.say("something")
    progress.end([], interrupted=True)
    first, note, end = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["frames"], first["total"], first["people"], first["dropped"]) == (
        "progress",
        1,
        10,
        2,
        2,
    )
    assert first["left_s"] >= 0
    assert note == {"event": "note", "input": "in.mp4", "text": "something"}
    assert (end["event"], end["interrupted"], end["frames_out"]) == ("end", True, 1)


def test_objects_are_whole_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(pipe, "cp1252", errors="backslashreplace", write_through=True))
    with Progress("é\U0001f600.mp4", 1, "json") as progress:
        progress.end([])
    assert json.loads(pipe.getvalue())["input"] == "é\U0001f600.mp4"


@pytest.mark.parametrize("columns", [40, 80])
def test_the_figures_are_whole_beside_a_long_name(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("cpnpose.cli.progress._REPORT_S", 0.0)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with Progress(f"/home/somebody/{'a long name ' * 9}.mp4", 30, "bar") as progress:
        for _ in range(17):
            progress.tally.add(people(1, [1]))
        progress.update()
    assert re.search(r"17/30 \d+\.\d frames/s, 1 people", terminal.getvalue())


@pytest.mark.parametrize("kind", ["bar", "json", "none"])
def test_without_standard_error_nothing_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: ProgressKind
) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it where it was closed from the start
    with Progress("in.mp4", 1, kind) as progress:
        progress.say("a note")
        progress.say_error(CpnposeError("a fault"))
        progress.end([])
    assert capsys.readouterr().out == ""


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("in.mp4", None, "none") as progress:
        progress.update()
        progress.say("something")
    progress.end([])
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_waits_until_the_writing_is_done() -> None:
    before = signal.getsignal(signal.SIGINT)
    written = []
    with pytest.raises(KeyboardInterrupt), InterruptAtRest() as interrupt:  # noqa: PT012
        for number in range(5):
            with interrupt.waiting():
                pass
            written.append(number)
            if number == 2:
                os.kill(os.getpid(), signal.SIGINT)
            written.append(number)
    assert written == [0, 0, 1, 1, 2, 2]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_waiting_interrupts_at_once() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), InterruptAtRest() as interrupt:  # noqa: PT012
        with interrupt.waiting():
            os.kill(os.getpid(), signal.SIGTERM)
        reached = True
    assert not reached
