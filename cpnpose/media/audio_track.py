"""How one audio stream goes into an output: copied, converted, or not at all, as muxer and encoder allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container.output import OutputContainer
from av.packet import Packet

from cpnpose.media.codecs import audio_encoder, can_copy_audio
from cpnpose.media.rational import fraction

_LAYOUTS = (("7.1", 8), ("5.1", 6), ("stereo", 2), ("mono", 1))
"""What players know, with the number of channels."""
_HIGHEST_RATE = 48000
_BITS_PER_CHANNEL = 96000
"""Bit rate of converted sound, per second and channel."""


class Copied:
    """A stream whose packets go over as they are."""

    change: str | None = None

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        self._stream = output.add_stream_from_template(source)
        self._stream.metadata.update(source.metadata)

    def convert(self, packet: Packet[Any], origin: Fraction) -> list[Packet[Any]]:
        """What stands in the output for ``packet``, with ``origin`` (seconds) as time 0."""
        shift = round(origin / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = self._stream
        return [packet]

    def flush(self) -> list[Packet[Any]]:
        """What is still held back."""
        return []

    def try_out(self) -> list[Packet[Any]]:
        """Packets that show whether this works; none, because the head of the file shows it."""
        return []


class Converted:
    """A stream that is decoded, and encoded again by ``encoder`` with the channels of ``layout``."""

    def __init__(self, encoder: str, layout: tuple[str, int], source: AudioStream, output: OutputContainer) -> None:
        name, channels = layout
        rate = _writable_rate(encoder, source.rate)
        stream = output.add_stream(encoder, rate=rate, layout=name)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.bit_rate = _BITS_PER_CHANNEL * channels
        self._stream.metadata.update(source.metadata)
        self._new_resampler = partial(AudioResampler, format=stream.codec_context.format, layout=name, rate=rate)
        self._resampler = self._new_resampler()
        self._source = source
        self.change = f"to {encoder}"
        """What happens to the sound, in words."""
        if channels < source.channels:
            self.change += f", its {source.channels} channels mixed to {channels}"

    def convert(self, packet: Packet[Any], origin: Fraction) -> list[Packet[Any]]:
        """What stands in the output for ``packet``, with ``origin`` (seconds) as time 0."""
        encoded: list[Packet[Any]] = []
        for decoded in self._source.decode(packet):
            time_base = fraction(decoded.time_base)
            if decoded.pts is not None and time_base is not None:
                decoded.pts -= round(origin / time_base)
            encoded += self._encode(decoded)
        return encoded

    def flush(self) -> list[Packet[Any]]:
        """What resampler and encoder still hold back."""
        return self._encode(None) + self._stream.encode(None)

    def _encode(self, decoded: AudioFrame | None) -> list[Packet[Any]]:
        try:
            resampled = self._resampler.resample(decoded)
        except ValueError:  # Broadcasts change their channels on the way; a resampler takes one kind of frame only.
            resampled = self._resampler.resample(None)
            self._resampler = self._new_resampler()
            resampled += self._resampler.resample(decoded)
        return [packet for frame in resampled for packet in self._stream.encode(frame)]

    def try_out(self) -> list[Packet[Any]]:
        """The packets of a moment of silence."""
        silence = np.zeros((1, 4096 * self._source.channels), np.float32)
        frame = AudioFrame.from_ndarray(silence, format="flt", layout=self._source.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = self._source.rate, 0, Fraction(1, self._source.rate)
        return self._encode(frame) + self.flush()


Track = Copied | Converted


def add_track(source: AudioStream, output: OutputContainer, path: Path) -> Track | None:
    """Carry ``source`` into ``output``, the file ``path``: copied if muxer and players take that, else converted with
    as many channels as the encoder takes. None where nothing works."""
    for way in _ways(source, path):
        if _works(partial(way, source), output.format.name):
            return way(source, output)
    return None


def _ways(source: AudioStream, path: Path) -> Iterator[Callable[[AudioStream, OutputContainer], Track]]:
    if can_copy_audio(path, source.codec_context.codec.canonical_name):
        yield Copied
    encoder = audio_encoder(path)
    for name, channels in _LAYOUTS:
        if channels <= source.channels and source.rate > 0:
            yield partial(Converted, encoder, (name, channels))


def _works(way: Callable[[OutputContainer], Track], container_format: str) -> bool:
    """Whether a file of this format with such a track can be written: one is, in memory."""
    try:
        with av.open(BytesIO(), "w", format=container_format) as trial:
            track = way(trial)
            trial.start_encoding()
            trial.mux(track.try_out())
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _writable_rate(encoder: str, rate: int) -> int:
    """The encoder's sample rate that loses nothing of one of ``rate``, up to 48 kHz. Opus always plays at 48 kHz."""
    rates = av.codec.Codec(encoder, "w").audio_rates or [rate]
    wanted = _HIGHEST_RATE if encoder == "libopus" else min(rate, _HIGHEST_RATE)
    return min((r for r in rates if r >= wanted), default=max(rates))
