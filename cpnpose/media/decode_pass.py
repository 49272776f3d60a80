"""One pass over a video: what a container gives from where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.container.input import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cpnpose.media.pipe import interruptible
from cpnpose.media.seek import StartPoint
from cpnpose.media.source import reason_of
from cpnpose.media.timing import FrameClock

_MAX_READ_ERRORS = 50
"""Errors of the demuxer in a row, without a frame in between, after which the rest of the file is given up."""


@dataclass(frozen=True)
class DecodedFrame:
    """A frame in the decoder's own colours and size."""

    index: int
    pts: int
    image: VideoFrame


class DecodePass:
    """The frames of ``stream`` as (pts, frame), in order; iterate it once.

    clock: gives the timestamps. first, last: ticks; frames from the one on and before the other come out. start: where
    a seek has led, or None at the beginning of the file.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        clock: FrameClock,
        first: float = -math.inf,
        last: float = math.inf,
        start: StartPoint | None = None,
    ) -> None:
        self.damaged = 0
        """Packets and frames so far that could not be decoded, or only in part."""
        self.first_index = 0 if start is None else start.index
        """Number in the file of the first frame that comes out; true as soon as it is out."""
        self.is_behind_end = False
        """Whether a frame was met at ``last`` or later."""
        self.reached: int | None = None
        """Ticks at which the pictures end, once the file was read to its end."""
        self.failure: str | None = None
        """Why the reading ended early."""
        self._container, self._stream, self._clock = container, stream, clock
        self._first, self._last = first, last
        self._sought, self._awaited = start is not None, start

    def __iter__(self) -> Iterator[tuple[int, VideoFrame]]:
        errors = corrupt_packets = stored = pts = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._packets():
                    corrupt_packets += packet.is_corrupt
                    stored = packet.duration or stored  # The last one's tells the end, though it may be shown earlier.
                    for frame in self._decode(packet):
                        errors = 0
                        if frame.pts is None and frame.dts is None and self._sought:
                            continue
                        pts = self._clock.stamp(frame.pts if frame.pts is not None else frame.dts, frame.duration)
                        if pts < self._first:
                            self.first_index += not self._sought
                            continue
                        if pts >= self._last:
                            self.is_behind_end = True
                            return
                        self.damaged += frame.is_corrupt
                        yield pts, frame
                self.damaged = max(self.damaged, corrupt_packets)  # several threads decode on without a word
                self.reached = max(self._clock.end, pts + stored)
                return
            except av.error.FFmpegError as error:
                self.damaged += 1
                errors += 1
                if not isinstance(error, av.error.InvalidDataError):
                    self.failure = reason_of(error)
                    return

    def _packets(self) -> Iterator[Packet[Any]]:
        """The packets from here on; after a seek, from the first key frame on, and none where that lies too late."""
        with interruptible():
            for packet in self._container.demux(self._stream):
                if self._awaited is not None:
                    if self._awaited.is_behind(packet):
                        return
                    if not packet.is_keyframe:
                        continue
                    self._awaited = None
                yield packet

    def _decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        try:
            return packet.decode()
        except EOFError:
            return []
        except av.error.FFmpegError:
            self.damaged += 1
            return []
