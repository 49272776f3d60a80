"""Live pictures: always the newest frame, older ones dropped and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from cpnpose.errors import InputError
from cpnpose.media.source import is_address
from cpnpose.media.video_reader import VideoReader
from cpnpose.pose.types import Frame, ImageArray, VideoInfo

TIME_BASE = Fraction(1, 90000)
"""Seconds per tick of the frames' ``pts``: fine enough for true speed, and every container holds it."""
_MAX_FAILURES = 30
_JOIN_S = 30.0


class Camera:
    """A camera, a live address, or a file played at its own speed; a thread reads it and keeps only the newest frame.

    ``Frame.time_s`` counts seconds of the machine's steady clock from the first picture on, ``Frame.index`` counts the
    pictures that were captured, also those that nobody took. A context manager; iterating ends with the source.

    source: number of a local camera (``0`` or ``"0"``), URL or RTSP address, or path of a video file.
    size: (H, W) that a local camera is asked for. fps: frame rate that a local camera is asked for.
    Raises :class:`InputError` where the source cannot be opened; later errors reach the one who calls :meth:`read`.
    """

    def __init__(
        self, source: int | str | Path, *, size: tuple[int, int] | None = None, fps: float | None = None
    ) -> None:
        self.captured = 0
        """Pictures read from the source so far."""
        self.dropped = 0
        """Pictures that were replaced by a newer one before anybody took them."""
        self.notes: list[str] = []
        """What the user should know about the source, in plain words."""
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._zero = 0.0
        local = isinstance(source, int) or (isinstance(source, str) and source.isdecimal())
        self._source: _Local | _Stream = _Local(int(str(source)), size, fps) if local else _Stream(str(source))
        self.info: VideoInfo = self._source.info
        self._thread = threading.Thread(target=self._read_all, name=f"camera {source}", daemon=True)
        self._thread.start()

    def _read_all(self) -> None:
        try:
            for seconds, image in self._source.pictures(self._stop):
                if self._stop.is_set():
                    break
                now = time.monotonic()
                if self.captured == 0:
                    self._zero = now - seconds if seconds is not None else now
                since = now - self._zero if seconds is None else seconds
                pts = round(since / TIME_BASE)
                frame = Frame(self.captured, pts, TIME_BASE, float(pts * TIME_BASE), image)
                with self._changed:
                    self.dropped += self._newest is not None
                    self.captured += 1
                    self._newest = frame
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            self.notes += self._source.notes
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def read(self, timeout: float | None = None) -> Frame | None:
        """The newest frame that was not taken yet; waits for one. None at the end of the source or after
        :meth:`close`. Raises what the reading thread raised, and :class:`InputError` after ``timeout`` seconds."""
        with self._changed:
            ready = self._changed.wait_for(lambda: self._newest is not None or self._ended, timeout)
            frame, self._newest = self._newest, None
        if frame is not None:
            return frame
        if not ready:
            raise InputError(f"{self.info.source}: no picture for {timeout:g} s. Check that the camera still sends.")
        if self._error is not None:
            raise self._error
        return None

    def latency_s(self, frame: Frame) -> float:
        """Seconds that have passed since ``frame`` was captured."""
        return time.monotonic() - self._zero - frame.time_s

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def close(self) -> None:
        """Stop reading and release the source. May be called twice."""
        self._stop.set()
        self._source.stop()
        self._thread.join(_JOIN_S)
        with self._changed:
            self._newest, self._ended = None, True
            self._changed.notify_all()
        if not self._thread.is_alive():
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Local:
    """A camera at this machine, through OpenCV."""

    def __init__(self, number: int, size: tuple[int, int] | None, fps: float | None) -> None:
        self.notes: list[str] = []
        self._name = f"camera {number}"
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"{self._name}: cannot be opened. Check that it is plugged in, allowed and not used by another program."
            )
        if size is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[1])
        if fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        try:
            self._first = self._read(threading.Event())
        except InputError:
            self._capture.release()
            raise
        height, width = self._first.shape[:2]
        known = Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else None
        self.info = VideoInfo(height, width, known, None, 0, False, None, self._name)

    def _read(self, stop: threading.Event) -> ImageArray:
        for _ in range(_MAX_FAILURES):
            done, image = self._capture.read()
            if done and image is not None:
                code = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
                return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)
            if stop.wait(0.05):
                break
        raise InputError(f"{self._name}: sends no pictures. Check its cable, and that no other program uses it.")

    def pictures(self, stop: threading.Event) -> Iterator[tuple[float | None, ImageArray]]:
        yield None, self._first
        while not stop.is_set():
            try:
                image = self._read(stop)
            except InputError:
                if stop.is_set():
                    return
                raise
            yield None, image

    def stop(self) -> None:
        pass  # OpenCV waits for a picture for some seconds at most.

    def close(self) -> None:
        self._capture.release()


class _Stream:
    """An address, taken as it arrives, or a file, played at its own speed."""

    def __init__(self, source: str) -> None:
        self._reader = VideoReader(source, low_delay=is_address(source))
        self._live = self._reader.info.live
        self.notes = self._reader.notes
        self.info = self._reader.info

    def pictures(self, stop: threading.Event) -> Iterator[tuple[float | None, ImageArray]]:
        begin = first = None
        for frame in self._reader:
            if stop.is_set():
                return
            if self._live:
                yield None, frame.image
                continue
            if begin is None or first is None:
                begin, first = time.monotonic(), frame.time_s
            seconds = frame.time_s - first
            if stop.wait(max(0.0, begin + seconds - time.monotonic())):
                return
            yield seconds, frame.image

    def stop(self) -> None:
        self._reader.stop()

    def close(self) -> None:
        self._reader.close()
