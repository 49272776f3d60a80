"""What goes through reader and writer is the same video, by the judgement of a tool that knows neither."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.media.video import VideoReader, VideoWriter

Make = Callable[..., Path]
_SHARED = Path(os.environ.get("CPNPOSE_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
_TOOL = _SHARED / "tools" / "check_video.py"
needs_tool = pytest.mark.skipif(not _TOOL.exists(), reason="needs the shared folder")

_CASES: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "two-tracks.mp4": {"audio": ("aac", "ac3")},
    "variable.mp4": {"times": [0, 0.04, 0.05, 0.3, 0.301, 1, 1.5, 1.54, 1.58, 1.9], "audio": ("aac",)},
    "variable.mkv": {"times": [0, 0.033, 0.067, 0.3, 0.4, 1, 1.5, 1.54, 1.58, 1.9], "time_base": Fraction(1, 1000)},
    "late.ts": {"times": [3 + i / 25 for i in range(10)], "time_base": Fraction(1, 90000), "audio": ("aac",)},
    "turned90.mp4": {"rotation": 90},
    "turned180.mp4": {"rotation": 180},
    "turned270.mp4": {"rotation": 270},
    "odd.mkv": {"size": (47, 61), "pixel_format": "yuv444p", "time_base": Fraction(1, 1000)},
    "ten-bit.mp4": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "moving.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "old.avi": {"codec": "mpeg4", "time_base": Fraction(1, 25), "audio": ("ac3",)},
    "web.webm": {"codec": "libvpx-vp9", "time_base": Fraction(1, 1000), "audio": ("libopus",)},
    "film.mov": {"fps": 24, "time_base": Fraction(1001, 24000), "times": [i * 1001 / 24000 for i in range(10)]},
    "one.mp4": {"count": 1},
}


def copy(source: Path | str, target: Path) -> int:
    with VideoReader(source, threads=1) as reader:
        size = (reader.info.height, reader.info.width)
        with VideoWriter(target, size=size, time_base=reader.time_base, source=source, fps=reader.info.fps) as writer:
            for frame in reader:
                writer.write(frame, frame.image)
    return writer.frames_written


@needs_tool
@pytest.mark.parametrize("name", _CASES)
def test_same(tmp_path: Path, make_video: Make, name: str) -> None:
    source = make_video(tmp_path / name, **_CASES[name])
    copy(source, tmp_path / "out.mp4")
    check = subprocess.run(
        [sys.executable, _TOOL, source, tmp_path / "out.mp4"], capture_output=True, text=True, timeout=60
    )
    assert check.stdout.startswith("same"), check.stdout + check.stderr


def test_a_truncated_file_gives_a_whole_one(tmp_path: Path, make_video: Make) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3)).astype(np.uint8)
    options = {"movflags": "+faststart"}
    source = make_video(tmp_path / "in.mp4", images=list(noise), audio=("aac",), container_options=options)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    written = copy(source, tmp_path / "out.mp4")
    assert 10 < written < 30
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert sum(1 for _ in reader) == written


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address under which the files of ``tmp_path`` can be fetched."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_an_address_is_read_with_its_sound(tmp_path: Path, make_video: Make, server: str) -> None:
    make_video(tmp_path / "in.mp4", audio=("aac",), container_options={"movflags": "+faststart"})
    assert copy(f"{server}/in.mp4", tmp_path / "out.mp4") == 10
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.info.has_audio


def test_a_part_of_an_address_keeps_its_place(tmp_path: Path, make_video: Make, server: str) -> None:
    make_video(tmp_path / "in.mp4", container_options={"movflags": "+faststart"})
    make_video(tmp_path / "in.ts", time_base=Fraction(1, 90000))  # its length cannot be known: read as a live stream
    for name in ("in.mp4", "in.ts"):
        with VideoReader(f"{server}/{name}", start=0.2) as reader:
            assert [frame.index for frame in reader] == [5, 6, 7, 8, 9]


def test_a_file_that_this_server_cannot_send_is_told(tmp_path: Path, make_video: Make, server: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 240, 320, 3)).astype(np.uint8)
    make_video(
        tmp_path / "in.mp4", images=list(noise)
    )  # its index stands at the end; the server answers no range requests
    with pytest.raises(InputError, match="range requests, download the file first"):
        VideoReader(f"{server}/in.mp4")


def test_gif_colours(tmp_path: Path, make_video: Make) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = np.linspace(40, 200, 64, dtype=np.uint8)
    image[..., 2] = np.linspace(200, 90, 48, dtype=np.uint8)[:, None]
    copy(make_video(tmp_path / "in.mp4", images=[image] * 3), tmp_path / "out.gif")
    with VideoReader(tmp_path / "out.gif") as reader:
        frames = list(reader)
    assert len(frames) == 3
    assert np.abs(frames[1].image.astype(int) - image).mean() < 6
