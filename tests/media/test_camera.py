"""A live source gives the newest picture at its true time, counts what it drops, and never hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.media.camera import Camera

Make = Callable[..., Path]


class FakeCapture:
    """Stands in for ``cv2.VideoCapture``: a few grey pictures at 100 per second, then nothing."""

    pictures = 20
    opened = True
    released = 0

    def __init__(self, number: int) -> None:
        self.count = 0

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.01)
        self.count += 1
        if self.count > self.pictures:
            return False, None
        return True, np.full((24, 32, 3), (self.count, 100, 200), np.uint8)

    def get(self, what: int) -> float:
        return 100.0

    def set(self, what: int, value: float) -> bool:
        return True

    def release(self) -> None:
        type(self).released += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCapture]]:
    before = threading.active_count()
    capture = type("Capture", (FakeCapture,), {})
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    monkeypatch.setattr("cpnpose.media.camera._MAX_FAILURES", 2)
    yield capture
    assert threading.active_count() == before
    assert capture.released == 1


def test_a_file_plays_at_its_own_speed(tmp_path: Path, make_video: Make) -> None:
    begin = time.monotonic()
    with Camera(make_video(tmp_path / "a.mp4", count=10)) as camera:
        frames = list(camera)
        assert (camera.info.height, camera.info.width, camera.info.fps) == (48, 64, 25)
        assert camera.captured == 10
        assert len(frames) + camera.dropped == 10
    assert time.monotonic() - begin >= 9 / 25
    assert [f.time_s for f in frames] == pytest.approx([f.index / 25 for f in frames], abs=1e-4)


def test_a_slow_consumer_gets_the_newest_frame(tmp_path: Path, make_video: Make) -> None:
    with Camera(make_video(tmp_path / "a.mp4", count=30)) as camera:
        taken = []
        while (frame := camera.read()) is not None:
            taken.append(frame)
            assert camera.latency_s(frame) < 0.2
            time.sleep(0.15)
        assert camera.captured == 30
        assert camera.dropped == 30 - len(taken)
    assert 5 <= len(taken) <= 12
    assert [f.index for f in taken] == sorted({f.index for f in taken})
    assert taken[-1].index == 29


def test_latency_grows_while_a_frame_is_held(fake: type[FakeCapture]) -> None:
    with Camera(0) as camera:
        frame = camera.read(timeout=5)
        assert frame is not None
        first = camera.latency_s(frame)
        time.sleep(0.05)
        assert camera.latency_s(frame) - first >= 0.05


def test_a_local_camera_gives_rgb_and_steady_times(fake: type[FakeCapture]) -> None:
    fake.pictures = 10_000
    with Camera("0") as camera:
        frames = [camera.read(timeout=5) for _ in range(5)]
    times = [f.time_s for f in frames if f is not None]
    assert len(times) == 5
    assert times == sorted(set(times))
    assert frames[0] is not None
    assert frames[0].image[0, 0].tolist()[:2] == [200, 100]
    assert camera.read(timeout=5) is None


def test_an_error_of_the_camera_reaches_the_reader(fake: type[FakeCapture]) -> None:
    with Camera(0) as camera, pytest.raises(InputError, match=r"camera 0: sends no pictures"):
        list(camera)


def test_a_camera_that_cannot_be_opened(fake: type[FakeCapture]) -> None:
    fake.opened = False
    with pytest.raises(InputError, match=r"camera 3: cannot be opened"):
        Camera(3)


def test_a_silent_camera_is_named(fake: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    fake.pictures = 1
    monkeypatch.setattr("cpnpose.media.camera._MAX_FAILURES", 1000)
    with Camera(0) as camera:
        assert camera.read(timeout=5) is not None
        with pytest.raises(InputError, match="no picture for"):
            camera.read(timeout=0.1)


def test_closing_in_the_middle_ends_the_thread(tmp_path: Path, make_video: Make) -> None:
    before = threading.active_count()
    camera = Camera(make_video(tmp_path / "a.mp4", count=10, fps=1))
    assert camera.read(timeout=5) is not None
    begin = time.monotonic()
    camera.close()
    camera.close()
    assert time.monotonic() - begin < 1
    assert threading.active_count() == before
    assert camera.read() is None


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mp4"):
        Camera(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/x"):
        Camera("http://127.0.0.1:9/x")
