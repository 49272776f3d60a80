"""Carrying the audio of the input over into the output, packet by packet as the video grows."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.packet import Packet
from av.stream import Discard

from cpnpose.media.codecs import audio_encoder, can_copy_audio, can_hold_audio
from cpnpose.media.source import open_input, origin_of
from cpnpose.media.timing import FrameClock

_INTERLEAVED_S = 10
"""Packets that lie so many seconds behind the end have none before it after them."""


class _Copied:
    """A stream whose packets go over as they are."""

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        self._stream = output.add_stream_from_template(source)
        self._stream.metadata.update(source.metadata)

    def convert(self, packet: Packet[Any], origin: Fraction) -> list[Packet[Any]]:
        shift = round(origin / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = self._stream
        return [packet]

    def flush(self) -> list[Packet[Any]]:
        return []


class _Transcoded:
    """A stream whose codec does not fit the container."""

    def __init__(self, source: AudioStream, output: OutputContainer, encoder: str) -> None:
        rate = 48000 if encoder == "libopus" or source.rate > 48000 else source.rate
        fallback = source.layout.name if encoder == "aac" and source.channels in (4, 6, 8) else "stereo"
        layout = {1: "mono", 2: "stereo"}.get(source.channels, fallback)
        stream = output.add_stream(encoder, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.bit_rate = 96000 * max(1, min(source.channels, 6))
        self._stream.metadata.update(source.metadata)
        context = self._stream.codec_context
        self._resampler = AudioResampler(format=context.format, layout=layout, rate=rate)
        self._source = source

    def convert(self, packet: Packet[Any], origin: Fraction) -> list[Packet[Any]]:
        encoded: list[Packet[Any]] = []
        for decoded in self._source.decode(packet):
            if decoded.pts is not None and decoded.time_base is not None:
                decoded.pts -= round(origin / decoded.time_base)
            for frame in self._resampler.resample(decoded):
                encoded += self._stream.encode(frame)
        return encoded

    def flush(self) -> list[Packet[Any]]:
        encoded: list[Packet[Any]] = []
        for frame in self._resampler.resample(None):
            encoded += self._stream.encode(frame)
        return encoded + self._stream.encode(None)


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
        self._carried: dict[int, _Copied | _Transcoded] = {}
        self._clocks: dict[int, FrameClock] = {}
        self._damaged = 0
        for stream in self._container.streams:
            stream.discard = Discard.all
        for number, stream in enumerate(self._container.streams.audio, start=1):
            self._add(stream, number, path)
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
        assert stream.time_base is not None
        self._clocks[stream.index] = FrameClock(stream.time_base, None)
        if can_copy_audio(path, name):
            self._carried[stream.index] = _Copied(stream, self._output)
            return
        encoder = audio_encoder(path)
        self._carried[stream.index] = _Transcoded(stream, self._output, encoder)
        self.notes.append(f"audio track {number} was converted from {name} to {encoder}: {path.suffix} cannot hold it")

    def _read(self, start: float) -> Iterator[tuple[Fraction, Packet[Any]]]:
        """(seconds on the source's clock, packet) of the part that is kept, in the order of the file."""
        if self._container is None or not self._carried:
            return
        streams = [stream for stream in self._container.streams.audio if stream.index in self._carried]
        try:
            if start > 1:
                self._container.seek(int((self.origin - 1) * av.time_base))
            for packet in self._container.demux(streams):
                if not packet.size:
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
                yield seconds, packet
        except av.error.FFmpegError as error:
            self.notes.append(f"the audio ends early: it could not be read on ({error.strerror})")

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
            except av.error.InvalidDataError:  # of the packet; what the disk says is another error
                self._damaged += 1

    def finish(self) -> None:
        """Write what the encoders still hold."""
        for carried in self._carried.values():
            self._output.mux(carried.flush())
        if self._damaged:
            self.notes.append(f"{self._damaged} damaged packets of sound were left out")

    def close(self) -> None:
        """Release the source."""
        if self._container is not None:
            self._container.close()
            self._container = None
