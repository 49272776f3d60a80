from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def length_of(path: Path) -> tuple[int, float]:
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(container.streams.video[0])]
    return len(times), times[-1] - times[0]


def test_a_file_as_camera_is_recorded_at_true_speed(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    done = cpnpose("webcam", "--camera", clip, "--out", tmp_path / "o.mp4", "--json", "--jsonl", "--progress", "json")
    assert done.exit_code == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert events[0]["event"] == "note"
    assert "no screen" in events[0]["text"]
    end = events[-1]
    assert end["frames_in"] == end["frames_out"] >= 1
    assert end["frames_out"] + end["dropped"] <= 12
    assert end["latency_ms"] >= 0
    count, seconds = length_of(tmp_path / "o.mp4")
    assert count == end["frames_out"]
    document = json.loads((tmp_path / "o.json").read_text())
    assert document["complete"] is True
    assert document["source"]["kind"] == "camera"
    times = [frame["time"] for frame in document["frames"]]
    assert seconds == pytest.approx(times[-1] - times[0], abs=1e-3)
    assert times == sorted(times)
    assert times[-1] <= 0.65  # the clip's own time, not the machine's
    assert (tmp_path / "o.jsonl").read_text().count("\n") == count + 1


def test_ends_after_so_many_frames(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    done = cpnpose("webcam", "--camera", clip, "--out", tmp_path / "o.csv", "--max-frames", 1, "--no-preview")
    assert done.exit_code == 0, done.stderr
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 2
    assert "no preview" not in done.stderr
    done = cpnpose("webcam", "--camera", clip, "--out", "-", "--duration", "0.0001")
    assert len(done.stdout.splitlines()) == 1 + 1


def test_a_video_without_a_frame_is_not_named(
    cpnpose: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpnpose.media.camera import Camera

    monkeypatch.setattr(Camera, "read", lambda self, timeout=None: None)
    done = cpnpose("webcam", "--camera", clip, "--out", tmp_path / "o.mp4", "--csv", "--progress", "json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["results"] == [str(tmp_path / "o.csv")]
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]


def test_no_camera(cpnpose: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cpnpose("webcam", "--camera", "97", "--json")
    assert done.exit_code == 3
    assert "camera 97" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_label_of_the_preview_is_readable_on_any_picture() -> None:
    from cpnpose.cli.webcam_run import labelled

    picture = np.full((60, 320, 3), (0, 255, 0), np.uint8)
    shown = labelled(picture, "24 frames/s, 13 ms")
    assert (picture == (0, 255, 0)).all()
    letters = np.argwhere(shown.min(axis=2) > 200)
    assert len(letters) > 50
    top, left = letters.min(axis=0)
    bottom, right = letters.max(axis=0)
    under = shown[top - 1 : bottom + 2, left - 1 : right + 2]
    assert (under.max(axis=2) == under.min(axis=2)).all()  # white on black, nothing of the picture


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_it_with_whole_files(
    tmp_path: Path, tiny_weights: Path, make_frames: Callable[..., list[Any]]
) -> None:
    from fractions import Fraction

    from cpnpose.media.video import VideoWriter

    source = tmp_path / "long.mp4"
    with VideoWriter(source, size=(48, 64), time_base=Fraction(1, 12800), fps=Fraction(25)) as writer:
        for frame in make_frames(1500):
            writer.write(frame, frame.image)
    results = tmp_path / "results"
    results.mkdir()
    options = (
        "--out",
        results / "o.mp4",
        "--jsonl",
        "--weights",
        tiny_weights,
        "--detector",
        "none",
        "--device",
        "cpu",
    )
    command = [sys.executable, "-m", "cpnpose", "webcam", "--camera", str(source), *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    record = results / "o.partial.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (record.exists() and record.read_bytes().count(b"\n") > 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert {path.name for path in results.iterdir()} == {"o.mp4", "o.jsonl"}
    count, _ = length_of(results / "o.mp4")
    assert (results / "o.jsonl").read_text().count("\n") == count + 1 > 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--angles"], "add --json, --jsonl or --csv"),
        (["--json", "--codec", "hevc"], "no video is recorded"),
        (["--json", "--no-preview", "--draw-ids"], "nothing is shown or recorded"),
        (["--draw-ids", "--no-track"], "leave --no-track out"),
        (["--out", "o.gif", "--codec", "hevc"], "has no effect on a GIF"),
    ],
)
def test_options_without_effect_are_refused(
    cpnpose: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cpnpose("webcam", "--camera", clip, *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
