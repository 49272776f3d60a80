"""Reading videos: every decoded frame once, upright RGB, with its own timestamp."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container.input import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cpnpose.errors import InputError, OptionError
from cpnpose.media.color import FrameConverter
from cpnpose.media.cut_off import cut_off_note
from cpnpose.media.decode_pass import DecodedFrame, DecodePass
from cpnpose.media.part import Part
from cpnpose.media.rational import fraction
from cpnpose.media.seek import StartPoint, find_start
from cpnpose.media.source import (
    check_hwaccel,
    close_input,
    is_address,
    is_live,
    is_stored,
    open_input,
    open_pipe,
    origin_of,
    pick_video,
    rate_of,
)
from cpnpose.media.timing import FrameClock
from cpnpose.pose.types import Frame, VideoInfo

_Decoded = Iterator[tuple[int, VideoFrame]]
"""(pts, frame)"""


class VideoReader:
    """The frames of a file or address, in order, as :class:`Frame`.

    Each decoded frame comes out once, upright, with square pixels, as 8-bit BT.709 RGB, with its own timestamp.
    What cannot be decoded is skipped and counted in :attr:`damaged`; :attr:`notes` says what else went wrong.
    A context manager; iterate it once.

    source: path, URL or RTSP address. start, end: seconds from the beginning of the file; frames with
    start <= time < end are kept. every: of these, each every-th. threads: of the decoder, 0 = as many as the machine
    has. hwaccel: ``"cuda"`` or another device of FFmpeg; where it is not there, decoding is done in software
    and a note says so.
    low_delay: hand frames out as soon as they arrive, for live sources; costs throughput.
    Raises :class:`InputError` where there is nothing to read, :class:`OptionError` for impossible values.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        start: float = 0.0,
        end: float | None = None,
        every: int = 1,
        threads: int = 0,
        hwaccel: str | None = None,
        low_delay: bool = False,
    ) -> None:
        if every < 1:
            raise OptionError(f"every must be 1 or more, not {every}")
        if hwaccel is not None:
            check_hwaccel(hwaccel)
        self.notes: list[str] = []
        """What the user should know about the reading, in plain words."""
        self.hwaccel: str | None = None
        """The device that decodes, or None for software."""
        self._source, self._part, self._every, self._threads = str(source), Part(start, end), every, threads
        self._low_delay = low_delay
        self._stopped = False
        self._pipe = open_pipe(source)
        with ExitStack() as opened:
            if self._pipe is not None:
                opened.callback(self._pipe.close)
            self._container, self._stream = self._open(None)
            opened.callback(lambda: close_input(self._container, self._stream))
            self._prepare(hwaccel)
            self._opened = opened.pop_all()

    def _open(self, hwaccel: str | None) -> tuple[InputContainer, VideoStream]:
        container = open_input(self._source, hwaccel, low_delay=self._low_delay, pipe=self._pipe)
        try:
            stream = pick_video(container, self._source)
            stream.thread_type = "SLICE" if self._low_delay else "AUTO"
            stream.codec_context.thread_count = self._threads
        except BaseException:
            container.close()
            raise
        return container, stream

    def _prepare(self, hwaccel: str | None) -> None:
        stream = self._stream
        time_base = fraction(stream.time_base)
        if time_base is None:
            raise InputError(f"{self._source}: its video has no time base. Convert it with FFmpeg first.")
        self.time_base: Fraction = time_base
        """Seconds per tick of the frames' ``pts``."""
        self._fps = rate_of(self._container, stream)
        self._origin = origin_of(self._container)
        self._first, self._last = self._part.ticks(self.time_base, self._origin)
        self._end = min(self._last, (stream.start_time or 0) + (stream.duration or math.inf))
        duration = stream.duration * self.time_base if stream.duration else None
        if duration is None and self._container.duration:
            duration = Fraction(self._container.duration, av.time_base)
        # A file behind an address has a length; what is live has none.
        live = is_live(self._source) or (is_address(self._source) and duration is None)
        self._seekable = self._part.start > 0 and not live
        self._frames_behind = False  # Whether a frame was met that lies behind the end.
        self._frames, self._pending = self._begin(None)
        if self._pending is None:
            raise self._part.is_not_in(self._source, later_frames=self._frames_behind)
        stream = self._stream  # That of before may be closed.
        self._convert = FrameConverter(self._pending[1], fraction(stream.sample_aspect_ratio), self._threads)
        self.info = VideoInfo(
            height=self._convert.height,
            width=self._convert.width,
            fps=self._fps,
            frame_count=stream.frames or None,
            rotation=self._convert.rotation,
            has_audio=bool(self._container.streams.audio),
            duration_s=None if duration is None else float(duration),
            source=self._source,
            live=live,
        )
        if hwaccel is not None:
            self._switch_to(hwaccel)
            if self.hwaccel is None:
                self.notes.append(f"cannot be decoded on {hwaccel} here; it was done in software")

    def _switch_to(self, hwaccel: str) -> None:
        """Start over on a device. The first frame was decoded in software, because its rotation and colour tags do
        not survive the way through the device."""
        if not is_stored(self._source):
            return
        try:
            container, stream = self._open(hwaccel)
        except (InputError, NotImplementedError, RuntimeError, ValueError):
            return
        if not stream.codec_context.is_hwaccel:
            container.close()
            return
        close_input(self._container, self._stream)
        self._container, self._stream = container, stream
        frames, pending = self._begin(hwaccel)
        if pending is None:
            close_input(self._container, self._stream)
            self._container, self._stream = self._open(None)
            self._frames, self._pending = self._begin(None)
            return
        self._frames, self._pending, self.hwaccel = frames, pending, hwaccel

    def _begin(self, hwaccel: str | None) -> tuple[_Decoded, tuple[int, VideoFrame] | None]:
        """The frames from the start on, and the first of them. Seeks where that leads to the very frame that reading
        from the beginning would find first; elsewhere reads from the beginning."""
        if self._seekable:
            try:
                start = find_start(self._container, self._stream, int(self._first))
                if start is not None:
                    if start.pts is None or start.pts >= self._last:
                        self._frames_behind = start.pts is not None
                        return iter(()), None
                    for ticks in start.where_to_seek(self.time_base):
                        self._container.seek(ticks, stream=self._stream)
                        frames, pending = self._frames_from(start)
                        if pending is not None and pending[0] == start.pts:
                            return frames, pending
            except av.error.FFmpegError:
                pass  # No seeking here (a pipe, some addresses).
            close_input(self._container, self._stream)
            self._container, self._stream = self._open(hwaccel)
        return self._frames_from(None)

    def _frames_from(self, start: StartPoint | None) -> tuple[_Decoded, tuple[int, VideoFrame] | None]:
        """The frames after a seek to the start, or without one, and the first of them."""
        clock = FrameClock(self.time_base, self._fps)
        self._pass = DecodePass(self._container, self._stream, clock, self._first, self._last, start)
        self.notes.clear()
        frames = self._watch(self._pass)
        return frames, next(frames, None)

    def _watch(self, decoding: DecodePass) -> _Decoded:
        """Its frames, and notes on how it ended."""
        yield from decoding
        self._frames_behind |= decoding.is_behind_end
        if decoding.failure is not None:
            self.notes.append(f"reading ended early: {decoding.failure}")
        elif decoding.reached is not None and not self._stopped:
            reached = decoding.reached * self.time_base
            note = cut_off_note(self._source, self._container, self._stream, reached, self._origin)
            self.notes += [] if note is None else [note]

    @property
    def damaged(self) -> int:
        """Packets and frames so far that could not be decoded, or only in part."""
        return self._pass.damaged

    def __iter__(self) -> Iterator[Frame]:
        return map(self.frame, self.decoded())

    def decoded(self) -> Iterator[DecodedFrame]:
        """The frames as the decoder gives them, for :meth:`frame`, which may run in another thread."""
        first = index = self._pass.first_index
        pending, self._pending = self._pending, None
        while pending is not None:
            if (index - first) % self._every == 0:
                yield DecodedFrame(index, *pending)
            index += 1
            pending = next(self._frames, None)

    def frame(self, decoded: DecodedFrame) -> Frame:
        """The frame with its image converted."""
        time_s = float(decoded.pts * self.time_base)
        image = self._convert(decoded.image)
        return Frame(decoded.index, decoded.pts, self.time_base, time_s, image, self._duration(decoded))

    def _duration(self, decoded: DecodedFrame) -> int | None:
        """Ticks for which a frame is shown, to the end of the stream at most: MP4 tells how long frames last in the
        order in which they are stored."""
        shown = min(decoded.image.duration or 0, self._end - decoded.pts)
        return int(shown) if shown > 0 and self._every == 1 else None

    def stop(self) -> None:
        """End the waiting for a pipe, in whatever thread: there the video ends now. Else nothing waits for long."""
        self._stopped = True
        if self._pipe is not None:
            self._pipe.stop()

    def close(self) -> None:
        """Release the file and its decoder."""
        self._frames.close()  # type: ignore[attr-defined]
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
