"""A live stream over HTTP, as ``video`` and as ``webcam``: MPEG-TS with sound from a server in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest

Run = Callable[..., Any]
_FRAMES = 300
_FRAME_S = 0.04


class LiveServer(ThreadingHTTPServer):
    """Sends the same stream to everybody, without saying how long it is. ``/open`` then keeps the connection, as a
    camera that shows nothing new; ``/closed`` closes it, as a server that dies in the middle of a packet."""

    daemon_threads = True

    def __init__(self, stream: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stream, self.connections, self.over = stream, 0, threading.Event()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer

    def do_GET(self) -> None:
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        try:
            self.wfile.write(self.server.stream if self.path == "/open" else self.server.stream[:-100])
            self.wfile.flush()
        except OSError:
            return
        if self.path == "/open":
            self.server.over.wait(60)

    def log_message(self, *values: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Iterator[LiveServer]:
    path = tmp_path_factory.mktemp("live") / "live.ts"
    make_video(path, count=_FRAMES, time_base=Fraction(1, 90000), audio=("aac",), options={"g": "25", "bf": "0"})
    with LiveServer(path.read_bytes()) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.over.set()
        serving.shutdown()
        thread.join()


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        assert not container.streams.audio
        return [float(frame.pts * frame.time_base) for frame in container.decode(container.streams.video[0])]


def test_a_part_of_an_endless_stream_with_sound(cpnpose: Run, server: LiveServer, tmp_path: Path) -> None:
    before = server.connections
    done = cpnpose("video", server.url("open"), "--out", tmp_path / "o.mp4", "--json", "--end", 1)
    assert done.exit_code == 0, done.stderr
    assert server.connections == before + 1  # many cameras allow no second one
    assert "the sound of a live stream or pipe is not recorded" in done.stderr
    assert "25 frames in = 25 frames out" in done.stderr
    assert times_of(tmp_path / "o.mp4") == pytest.approx([i * _FRAME_S for i in range(25)], abs=1e-3)
    document = json.loads((tmp_path / "o.json").read_text())
    assert len(document["frames"]) == 25


def test_a_later_part(cpnpose: Run, server: LiveServer, tmp_path: Path) -> None:
    done = cpnpose("video", server.url("open"), "--out", tmp_path / "o.csv", "--start", 2, "--end", 3)
    assert done.exit_code == 0, done.stderr
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + 25


def test_the_server_dies(cpnpose: Run, server: LiveServer, tmp_path: Path) -> None:
    done = cpnpose("video", server.url("closed"), "--out", tmp_path / "o.mp4", "--jsonl", "--every", 10)
    assert done.exit_code == 0, done.stderr
    assert len(times_of(tmp_path / "o.mp4")) == _FRAMES // 10
    assert {path.name for path in tmp_path.iterdir()} == {"o.mp4", "o.jsonl"}


def test_as_a_camera(cpnpose: Run, server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = cpnpose("webcam", "--camera", server.url("closed"), "--out", tmp_path / "o.mp4", "--progress", "json")
    assert done.exit_code == 0, done.stderr
    end = json.loads(done.stderr.splitlines()[-1])
    assert end["frames_out"] == len(times_of(tmp_path / "o.mp4")) >= 1
    assert end["frames_out"] + end["dropped"] <= _FRAMES


def test_nothing_that_looks_at_the_whole_clip(cpnpose: Run, server: LiveServer, tmp_path: Path) -> None:
    done = cpnpose("video", server.url("open"), "--out", tmp_path / "o.mp4", "--person", "largest")
    assert done.exit_code == 2
    assert "record it first" in done.stderr
    assert list(tmp_path.iterdir()) == []
