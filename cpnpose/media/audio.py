"""Carrying the audio of the input over into the output, packet by packet as the video grows."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.packet import Packet
from av.stream import Discard, Disposition

from cpnpose.media.audio_track import Track, add_track
from cpnpose.media.codecs import audio_encoder, can_hold_audio, can_hold_pauses
from cpnpose.media.frame_grid import LIP_SYNC_S
from cpnpose.media.rational import fraction
from cpnpose.media.source import open_input, origin_of
from cpnpose.media.timing import FrameClock

_INTERLEAVED_S = 10
"""Packets that lie so many seconds behind the end have none before it after them."""
_JITTER_S = 0.02
"""What lies between two packets counts as a pause from so many seconds on."""


class AudioCarrier:
    """The audio streams of ``source``, cut to the part that is written, going into ``output`` as time goes on.

    start, end: seconds from the beginning of the source. What could not be copied as it is stands in ``notes``.
    Memory does not grow: at most one packet is held back.
    """

    def __init__(
        self, source: str | Path, output: OutputContainer, path: Path, start: float, end: float | None
    ) -> None:
        self.notes: list[str] = []
        self._container: InputContainer | None = open_input(source)
        self._output = output
        self.origin = origin_of(self._container) + Fraction(start)
        """Seconds on the source's clock that become 0 in the output."""
        self._end = None if end is None else origin_of(self._container) + Fraction(end)
        self._carried: dict[int, Track] = {}
        self._clocks: dict[int, FrameClock] = {}
        self._damaged = 0
        self._ends: dict[int, Fraction | None] = {}
        """Seconds on the source's clock at which the last packet ends, as far as it tells, of tracks that cannot hold
        pauses."""
        self._pauses: dict[int, Fraction] = {}
        self._sounding: dict[int, Fraction] = {}
        """Seconds of sound in a packet, 0 where that differs from packet to packet."""
        self._early = Fraction(0)
        self._suffix = path.suffix
        for stream in self._container.streams:
            stream.discard = Discard.all
        for number, stream in enumerate(self._container.streams.audio, start=1):
            self._add(stream, number, path)
        self._mark_default()
        self._packets = self._read(start)
        self._held: tuple[Fraction, Packet[Any]] | None = None

    def __bool__(self) -> bool:
        return bool(self._carried)

    def _add(self, stream: AudioStream, number: int, path: Path) -> None:
        if stream.codec_context is None:
            self.notes.append(f"audio track {number} was left out: its format is not known to this FFmpeg")
            return
        name = stream.codec_context.codec.canonical_name
        if not can_hold_audio(path):
            self.notes.append(f"audio track {number} was left out: {path.suffix} has no sound")
            return
        stream.discard = Discard.default
        time_base = fraction(stream.time_base)
        assert time_base is not None
        self._clocks[stream.index] = FrameClock(time_base, None)
        track = add_track(stream, self._output, path)
        if track is None:
            self.notes.append(
                f"audio track {number} was left out: {name} can neither be copied to {path.suffix} nor converted"
            )
            return
        self._carried[stream.index] = track
        if not can_hold_pauses(path, name if track.change is None else audio_encoder(path)):
            self._ends[stream.index], self._pauses[stream.index] = self.origin, Fraction(0)
            self._sounding[stream.index] = Fraction(stream.codec_context.frame_size, max(1, stream.rate))
        if track.change is not None:
            self.notes.append(
                f"audio track {number} was converted from {name} {track.change}: {path.suffix} cannot hold it"
            )

    def _mark_default(self) -> None:
        """Mark the track that players choose in the source. No other: they sound all that MP4 marks, at once."""
        assert self._container is not None
        kept = [stream for stream in self._container.streams.audio if stream.index in self._carried]
        for before, after in zip(kept, self._output.streams.audio, strict=True):
            if before.disposition & Disposition.default:
                after.disposition = Disposition.default
                return

    def _read(self, start: float) -> Iterator[tuple[Fraction, Packet[Any]]]:
        """(seconds on the source's clock, packet) of the part that is kept, in the order of the file."""
        if self._container is None or not self._carried:
            return
        streams = [stream for stream in self._container.streams.audio if stream.index in self._carried]
        try:
            if start > 1:
                self._container.seek(int((self.origin - 1) * av.time_base))
            for packet in self._container.demux(streams):
                if not packet.size or (packet.is_discard and not self._leads_in(packet)):
                    continue
                given = packet.pts if packet.pts is not None else packet.dts
                ticks = self._clocks[packet.stream.index].stamp(given, packet.duration)
                packet.pts = packet.dts = ticks
                seconds = ticks * packet.time_base
                if start > 0 and seconds < self.origin:
                    continue
                if self._end is not None and seconds >= self._end:
                    if seconds > self._end + _INTERLEAVED_S:
                        return
                    continue
                self._count_pause(packet, seconds)
                yield seconds, packet
        except av.error.FFmpegError as error:
            self.notes.append(f"the audio ends early: it could not be read on ({error.strerror})")

    def _leads_in(self, packet: Packet[Any]) -> bool:
        """Whether a packet that an edit list cuts away is the last before the beginning: the decoder needs it for the
        first that is heard."""
        if packet.pts is None:
            return False
        time, duration = packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base
        return time < self.origin < time + 2 * duration

    def _count_pause(self, packet: Packet[Any], seconds: Fraction) -> None:
        track = packet.stream.index
        if track not in self._ends:
            return
        end, duration = self._ends[track], (packet.duration or 0) * packet.time_base
        sounding = self._sounding[track]
        if sounding and duration > sounding + Fraction(LIP_SYNC_S):  # MP4 counts a pause to the packet before it.
            duration = sounding
        if end is not None and abs(seconds - end) > _JITTER_S:
            self._pauses[track] += seconds - end
            self._early = max(self._early, self._pauses[track])
        self._ends[track] = seconds + duration if duration else None

    def advance(self, until: Fraction | None) -> None:
        """Write the audio up to ``until`` seconds of the output, or all of it."""
        while True:
            item = self._held or next(self._packets, None)
            self._held = None
            if item is None:
                return
            seconds, packet = item
            if until is not None and seconds - self.origin > until:
                self._held = item
                return
            try:
                converted = self._carried[packet.stream.index].convert(packet, self.origin)
            except av.error.FFmpegError:
                self._damaged += 1
                continue
            try:
                self._output.mux(converted)
            # Of the packet; what the disk says is another error.
            except (av.error.InvalidDataError, av.error.ArgumentError):
                self._damaged += 1

    def finish(self) -> None:
        """Write what the encoders still hold."""
        for carried in self._carried.values():
            self._output.mux(carried.flush())
        if self._early > LIP_SYNC_S:
            self.notes.append(
                f"sound comes up to {float(self._early):.1f} s early: it begins late or has pauses, which "
                f"{self._suffix} cannot hold. End the name with .mkv to keep its times"
            )
        if self._damaged:
            packets = "packet of sound was" if self._damaged == 1 else "packets of sound were"
            self.notes.append(f"{self._damaged} damaged {packets} left out")

    def close(self) -> None:
        """Release the source."""
        if self._container is not None:
            self._container.close()
            self._container = None
