"""The preview never makes anybody wait, with or without a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import pytest

from cpnpose.errors import OutputError
from cpnpose.media.preview import Preview, open_preview, why_no_preview


def test_without_a_screen_there_is_a_reason_and_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    reason = why_no_preview()
    assert reason is not None
    assert "DISPLAY" in reason
    assert open_preview() is None
    with pytest.raises(OutputError, match="DISPLAY"):
        Preview()


def test_a_screen_that_does_not_answer_ends_the_window_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    begin = time.monotonic()
    with Preview() as preview:
        while not preview.failed and time.monotonic() - begin < 20:
            preview.show(np.zeros((64, 64, 3), np.uint8))
            time.sleep(0.02)
        assert preview.failed
        assert not preview.closed
        assert not preview.show(np.zeros((64, 64, 3), np.uint8))
    assert time.monotonic() - begin < 25


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24"], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    with os.fdopen(read) as answer:
        display = f":{answer.readline().strip()}"
    monkeypatch.setenv("DISPLAY", display)
    yield display
    server.terminate()
    server.wait()


def test_a_window_opens_takes_pictures_and_closes(screen: str) -> None:
    preview = open_preview("test")
    assert preview is not None
    with preview:
        shown, slowest, begin = 0, 0.0, time.monotonic()
        while shown < 5 and time.monotonic() - begin < 20:
            before = time.monotonic()
            shown += preview.show(np.full((1500, 2000, 3), 100, np.uint8))
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.01)
        assert shown == 5
        assert not preview.closed
        assert slowest < 1
    assert preview.closed
    assert not preview.show(np.zeros((8, 8, 3), np.uint8))
