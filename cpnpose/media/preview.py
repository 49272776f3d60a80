"""A window that shows pictures as they come, in a process of its own.

In a process of its own because windows of OpenCV and PyAV do not get along in one process on some systems
(PyAV issue 978: the first ``imshow`` after ``import av`` never returns).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from cpnpose.errors import OutputError
from cpnpose.pose.types import ImageArray

_LARGEST = 1280
_CLOSE_S = 3.0
_KEYS_THAT_END = (ord("q"), ord("Q"), 27)


def why_no_preview() -> str | None:
    """The reason why this machine cannot show a window, or None where it can."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    if not hasattr(cv2, "imshow"):
        return "this OpenCV was built without windows (opencv-python-headless)"
    return None


def open_preview(title: str = "cpnpose") -> Preview | None:
    """A preview window, or None where :func:`why_no_preview` gives a reason."""
    return None if why_no_preview() is not None else Preview(title)


class Preview:
    """A window. It shows the newest picture that it can and never makes the sender wait; the keys q and Escape and
    the window's own button end it. A context manager. Raises :class:`OutputError` where there is no screen."""

    def __init__(self, title: str = "cpnpose") -> None:
        reason = why_no_preview()
        if reason is not None:
            raise OutputError(f"preview: {reason}. Run it without a preview, or on a machine with a screen.")
        context = multiprocessing.get_context("spawn")
        self._pictures: Queue[ImageArray] = context.Queue(maxsize=1)
        self._stop: Event = context.Event()
        self._process: BaseProcess = context.Process(
            target=_run_window, args=(title, self._pictures, self._stop), name="cpnpose preview", daemon=True
        )
        self._process.start()

    @property
    def closed(self) -> bool:
        """Whether somebody closed the window: the user, or :meth:`close`."""
        return self._stop.is_set()

    @property
    def failed(self) -> bool:
        """Whether the window died of itself, as when the screen cannot be reached; nothing else need end for that."""
        return not self._stop.is_set() and not self._process.is_alive()

    def show(self, image: ImageArray) -> bool:
        """Hand over (H, W, 3) uint8 RGB; large pictures are shown smaller. Returns at once: False where the window
        is still busy with the picture before, or gone."""
        if self.closed or self.failed or self._pictures.full():
            return False
        longest = max(image.shape[:2])
        if longest > _LARGEST:
            scale = _LARGEST / longest
            image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        elif not image.flags.owndata:
            image = image.copy()
        try:
            self._pictures.put_nowait(image)
        except (queue.Full, ValueError):
            return False
        return True

    def close(self) -> None:
        """Close the window and end its process. May be called twice."""
        self._stop.set()
        self._process.join(_CLOSE_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_CLOSE_S)
        self._pictures.cancel_join_thread()
        self._pictures.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run_window(title: str, pictures: Queue[ImageArray], stop: Event) -> None:
    """The window's process: show what comes until the user, the owner or the owner's end closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle.
    os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # OpenCV's Qt complains about missing fonts.
    owner = multiprocessing.parent_process()
    opened = False
    try:
        while not stop.is_set() and (owner is None or owner.is_alive()):
            with contextlib.suppress(queue.Empty):
                image = pictures.get(timeout=0.02)
                if not opened:
                    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                    cv2.resizeWindow(title, image.shape[1], image.shape[0])
                    opened = True
                cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            if opened and (cv2.waitKey(5) & 0xFF in _KEYS_THAT_END or not _is_visible(title)):
                stop.set()
    finally:
        pictures.cancel_join_thread()


def _is_visible(title: str) -> bool:
    try:
        return bool(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1)
    except cv2.error:  # Some of OpenCV's window systems forget a closed window altogether.
        return False
