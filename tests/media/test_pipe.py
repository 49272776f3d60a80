"""A pipe is read like a file, and a silent sender keeps nobody from ending."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from av.codec.hwaccel import hwdevices_available

from cpnpose.media.camera import Camera
from cpnpose.media.video import VideoReader

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
Send = Callable[[bytes], Path]
COUNT = 200


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> bytes:
    """Longer than the five seconds that FFmpeg looks through before the first frame."""
    return make_video(tmp_path / "a.ts", count=COUNT, options={"g": "5", "bf": "0"}).read_bytes()


@pytest.fixture
def send(tmp_path: Path) -> Iterator[Send]:
    """Sends bytes through a named pipe, and keeps it open for as long as the test takes."""
    over = threading.Event()
    path = tmp_path / "pipe"
    senders: list[threading.Thread] = []

    def start(content: bytes) -> Path:
        def run() -> None:
            with suppress(BrokenPipeError), open(path, "wb", buffering=0) as pipe:
                pipe.write(content)
                over.wait(60)

        os.mkfifo(path)
        senders.append(threading.Thread(target=run))
        senders[0].start()
        return path

    yield start
    over.set()
    for sender in senders:
        sender.join()


def interrupt_soon() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("started in the background of a shell, where Ctrl-C is ignored")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_stopped_while_the_sender_is_silent(video: bytes, send: Send) -> None:
    with VideoReader(send(video), threads=1) as reader:
        begin = time.monotonic()
        threading.Timer(0.5, reader.stop).start()
        count = sum(1 for _ in reader)
        assert time.monotonic() - begin < 10
        assert COUNT - 10 <= count <= COUNT
        assert reader.notes == []


def test_a_camera_that_sends_nothing_more_is_closed_at_once(video: bytes, send: Send) -> None:
    path = send(video)
    with Camera(path) as camera:
        assert camera.read(timeout=5) is not None
        time.sleep(0.2)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("camera")]


@pytest.mark.parametrize("sent", [0, 188, 1.0])
def test_ctrl_c_while_the_sender_is_silent(video: bytes, send: Send, sent: float) -> None:
    path = send(video[: sent if isinstance(sent, int) else len(video)])
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt), VideoReader(path, threads=1) as reader:
        for _ in reader:
            pass


def test_ctrl_c_while_there_is_no_sender(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        VideoReader(tmp_path / "pipe")


@pytest.mark.skipif(not hwdevices_available(), reason="this FFmpeg knows no device")
def test_a_device_takes_no_frame_out_of_the_pipe(tmp_path: Path, video: bytes) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sender = threading.Thread(target=path.write_bytes, args=(video,))
    sender.start()
    with VideoReader(path, threads=1, hwaccel=hwdevices_available()[0]) as reader:
        assert sum(1 for _ in reader) == COUNT
        assert len(reader.notes) == 1
    sender.join()
