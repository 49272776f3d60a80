"""Reading videos: every decoded frame once, upright RGB, with its own timestamp."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
from cpnpose.media.source import check_hwaccel, is_address, is_live, open_input, origin_of, pick_video, reason_of
from cpnpose.media.timing import FrameClock
from cpnpose.pose.types import Frame, VideoInfo

_MAX_READ_ERRORS = 50
"""Errors of the demuxer in a row, without a frame in between, after which the rest of the file is given up."""


_CUT_OFF_S = 0.25
"""A file that ends so many seconds before its header says was cut off."""


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
        if not math.isfinite(start) or start < 0:
            raise OptionError(f"start must be 0 or more seconds, not {start}")
        if end is not None and not end > start:
            raise OptionError(f"end ({end} s) must lie behind start ({start} s)")
        if hwaccel is not None:
            check_hwaccel(hwaccel)
        self.damaged = 0
        """Packets and frames so far that could not be decoded, or only in part."""
        self.notes: list[str] = []
        """What the user should know about the reading, in plain words."""
        self.hwaccel: str | None = None
        """The device that decodes, or None for software."""
        self._source, self._start, self._end, self._every, self._threads = str(source), start, end, every, threads
        self._low_delay = low_delay
        self._first_index, self._sought = 0, False
        self._container, self._stream = self._open(None)
        try:
            self._prepare(hwaccel)
        except BaseException:
            self._container.close()
            raise

    def _open(self, hwaccel: str | None) -> tuple[InputContainer, VideoStream]:
        container = open_input(self._source, hwaccel, low_delay=self._low_delay)
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
        if stream.time_base is None:
            raise InputError(f"{self._source}: its video has no time base. Convert it with FFmpeg first.")
        self.time_base: Fraction = stream.time_base
        """Seconds per tick of the frames' ``pts``."""
        fps = stream.average_rate or stream.guessed_rate
        self._clock = FrameClock(self.time_base, fps)
        self._origin = origin_of(self._container)
        duration = stream.duration * self.time_base if stream.duration else None
        if duration is None and self._container.duration:
            duration = Fraction(self._container.duration, av.time_base)
        # A file behind an address has a length; what is live has none.
        live = is_live(self._source) or (is_address(self._source) and duration is None)
        if self._start > 0 and not live:
            self._seek()
        self._frames = self._decode()
        self._pending = next(self._frames, None)
        if self._pending is None:
            raise self._nothing_to_read()
        self._convert = FrameConverter(self._pending[1], stream.sample_aspect_ratio, self._threads)
        self.info = VideoInfo(
            height=self._convert.height,
            width=self._convert.width,
            fps=fps,
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
        if "://" in self._source:
            return
        try:
            container, stream = self._open(hwaccel)
        except (InputError, NotImplementedError, RuntimeError, ValueError):
            return
        if not stream.codec_context.is_hwaccel:
            container.close()
            return
        software = self._container, self._stream
        self._container, self._stream = container, stream
        self._clock = FrameClock(self.time_base, self.info.fps)
        self.damaged, self._first_index, self._sought = 0, 0, False
        if self._start > 0:
            self._seek()
        frames = self._decode()
        pending = next(frames, None)
        if pending is None:
            container.close()
            self._container, self._stream = software
            return
        software[0].close()
        self._frames, self._pending, self.hwaccel = frames, pending, hwaccel

    def _nothing_to_read(self) -> InputError:
        hint = " If the server allows no jumping, download the file first." if is_address(self._source) else ""
        if self._start > 0:
            return InputError(f"{self._source}: no frame from {self._start:g} s on. Give an earlier start.{hint}")
        return InputError(f"{self._source}: holds no frame that can be decoded. Check that the file is whole.{hint}")

    def _ticks(self, seconds: float) -> int:
        return math.ceil((Fraction(seconds) + self._origin) / self.time_base - Fraction(1, 1000))

    def _seek(self) -> None:
        """Go to the key frame before the start, and count the frames that lie before it, so that ``Frame.index``
        stays the position in the whole file."""
        target, stream = self._ticks(self._start), self._stream
        try:
            for packet in self._container.demux(stream):
                if packet.pts is not None and packet.size and not packet.is_discard:
                    self._first_index += packet.pts < target
                if packet.dts is not None and packet.dts >= target:
                    break
            # Half a second earlier, because containers seek by decoding time, which runs ahead of presentation.
            self._container.seek(target - round(Fraction(1, 2) / self.time_base), stream=stream)
            self._sought = True
        except av.error.FFmpegError:
            # No seeking here (a pipe, a live address): read on, and drop what lies before the start.
            self._container.close()
            self._container, self._stream = self._open(None)
            self._first_index = 0

    def _decode(self) -> Iterator[tuple[int, VideoFrame]]:
        """(pts, frame) of all frames from the start on, up to the end."""
        first = self._ticks(self._start) if self._start > 0 else None
        last = None if self._end is None else self._ticks(self._end)
        errors = corrupt_packets = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    corrupt_packets += packet.is_corrupt
                    try:
                        frames = packet.decode()
                    except EOFError:
                        frames = []
                    except av.error.FFmpegError:
                        self.damaged += 1
                        continue
                    for frame in frames:
                        errors = 0
                        if frame.pts is None and first is not None and frame.dts is None:
                            continue
                        pts = self._clock.stamp(frame.pts if frame.pts is not None else frame.dts, frame.duration)
                        if first is not None and pts < first:
                            self._first_index += not self._sought
                            continue
                        if last is not None and pts >= last:
                            return
                        if frame.is_corrupt:
                            self.damaged += 1
                        yield pts, frame
                self.damaged = max(self.damaged, corrupt_packets)  # several threads decode on without a word
                self._compare_with_header()
                return
            except av.error.FFmpegError as error:
                self.damaged += 1
                errors += 1
                if not isinstance(error, av.error.InvalidDataError):
                    self.notes.append(f"reading ended early: {reason_of(error)}")
                    return

    def _compare_with_header(self) -> None:
        """Note where the file ended long before its header says: it was cut off."""
        reached = self._clock.end * self.time_base
        if self._stream.duration is not None:
            promised = ((self._stream.start_time or 0) + self._stream.duration) * self.time_base
        elif self._container.duration and len(self._container.streams) == 1:
            promised = Fraction(self._container.duration, av.time_base)  # Matroska has that of the longest stream only
        else:
            return
        if promised - reached > _CUT_OFF_S:
            self.notes.append(
                f"the pictures end after {float(reached - self._origin):.2f} s, though the header "
                f"says {float(promised - self._origin):.2f} s: the file seems to be cut off"
            )

    def __iter__(self) -> Iterator[Frame]:
        index = self._first_index
        pending, self._pending = self._pending, None
        while pending is not None:
            pts, decoded = pending
            if (index - self._first_index) % self._every == 0:
                yield Frame(index, pts, self.time_base, float(pts * self.time_base), self._convert(decoded))
            index += 1
            pending = next(self._frames, None)

    def close(self) -> None:
        """Release the file and its decoder."""
        self._frames.close()  # type: ignore[attr-defined]
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
