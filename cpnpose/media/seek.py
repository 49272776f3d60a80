"""Where in a file the frames from a given time on begin: which frame is the first, and where decoding must start."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container.input import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream


@dataclass(frozen=True)
class StartPoint:
    """What must be found again after a seek. Times are ticks of the stream's time base."""

    index: int
    """How many frames of the whole file lie before the first one."""
    pts: int | None
    """Time of the first frame; None where the file ends before it."""
    key_pts: int
    """Presentation time of the last key frame at or before the start."""
    key_dts: int
    """Decoding time of this key frame."""
    key_position: int
    """Byte at which this key frame stands."""

    def where_to_seek(self, time_base: Fraction) -> tuple[int, ...]:
        """Ticks to try one after the other: containers seek by presentation time (mp4, Matroska), by decoding time, or
        only somewhere near (transport streams)."""
        second = round(1 / time_base)
        return self.key_pts, self.key_dts, self.key_dts - second, self.key_dts - 10 * second

    def is_behind(self, packet: Packet[Any]) -> bool:
        """Whether decoding from this packet on could miss the first frame, or meet another part of the file that has
        the same times (recordings that were joined)."""
        shown = shown_at(packet)
        return shown is None or shown > self.key_pts or packet.pos is None or not 0 <= packet.pos <= self.key_position


def shown_at(packet: Packet[Any]) -> int | None:
    """Ticks at which the packet's frame is shown, as far as the packet tells it: H.264 in AVI has decoding times only,
    which are the same where frames are stored in the order of display."""
    if packet.pts is None and isinstance(packet.stream, VideoStream) and not packet.stream.codec_context.has_b_frames:
        return packet.dts
    return packet.pts


def find_start(container: InputContainer, stream: VideoStream, target: int) -> StartPoint | None:
    """Count the frames before ``target`` (ticks) from the packets, without decoding; reads on to the first frame.

    None where packets do not tell it: they have no times or no place of their own (program streams, raw streams: after
    a seek their times would be guessed anew), time jumps back, or no key frame lies before the target. Then only
    reading from the beginning is sure.
    """
    index, first, last_dts = 0, None, None
    key: tuple[int, int, int] | None = None
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        pts, dts, position = shown_at(packet), packet.dts, packet.pos
        if pts is None or position is None or position < 0:
            return None
        if dts is not None:
            if last_dts is not None and dts < last_dts:
                return None
            last_dts = dts
        if pts < target:
            index += 1
        elif first is None or pts < first:
            first = pts
        if packet.is_keyframe and pts <= target:
            key = pts, pts if dts is None else dts, position
        if first is not None and dts is not None and dts >= first:
            break  # What is decoded later is shown later.
    return None if key is None else StartPoint(index, first, *key)
