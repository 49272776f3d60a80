"""Sound of every kind goes into every container: copied, converted to what encoder and muxer take, or left out."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from av.stream import Disposition

from cpnpose.media import audio_track
from cpnpose.media.video import VideoReader, VideoWriter


def record(path: Path, codec: str, layout: str, rate: int, seconds: float = 1.0) -> Path:
    """A video of grey pictures with a tone of 440 Hz on all channels."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout=layout)
        container.start_encoding()
        channels = av.AudioLayout(layout).nb_channels
        wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
        samples = np.ascontiguousarray(np.repeat(wave[:, None], channels, axis=1).reshape(1, -1), np.float32)
        tone = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        tone.sample_rate, tone.pts, tone.time_base = rate, 0, Fraction(1, rate)
        context = audio.codec_context
        resampler = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for frame in [*resampler.resample(tone), *resampler.resample(None)]:
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
        for i in range(int(25 * seconds)):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60, np.uint8), format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(video.encode(picture.reformat(format="yuv420p")))
        container.mux(video.encode(None))
    return path


def copy(source: Path, target: Path) -> list[str]:
    with (
        VideoReader(source, threads=1) as reader,
        VideoWriter(target, size=(48, 64), time_base=reader.time_base, fps=reader.info.fps, source=source) as writer,
    ):
        for frame in reader:
            writer.write(frame, frame.image)
    return writer.notes


def heard(path: Path) -> tuple[str, int, float, int]:
    """Codec, channels, seconds, and the loudest frequency of the first channel in Hz."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        codec, channels, rate = stream.codec_context.codec.canonical_name, stream.channels, stream.rate
    first = np.concatenate([f.to_ndarray()[0][:: 1 if f.format.is_planar else channels] for f in frames])
    middle = first[rate // 4 : rate // 4 + rate // 2].astype(float)
    return codec, channels, len(first) / rate, 2 * int(np.abs(np.fft.rfft(middle)).argmax())


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate", "target", "expected"),
    [
        ("a.mkv", "pcm_s16le", "5.1", 48000, "o.mp4", ("aac", 6)),
        ("a.mkv", "pcm_s24le", "5.1", 96000, "o.webm", ("opus", 6)),
        ("a.mkv", "pcm_s16le", "5.1", 48000, "o.avi", ("pcm_s16le", 6)),
        ("a.mkv", "pcm_s16le", "quad", 48000, "o.mp4", ("aac", 2)),
        ("a.mkv", "pcm_s16le", "6.1", 48000, "o.webm", ("opus", 6)),
        ("a.mkv", "pcm_s16le", "stereo", 37000, "o.mp4", ("aac", 2)),
        ("a.mkv", "pcm_s16be", "mono", 8000, "o.avi", ("mp3", 1)),
        ("a.mkv", "ac3", "5.1(side)", 48000, "o.webm", ("opus", 6)),
        ("a.mkv", "ac3", "5.1(side)", 48000, "o.mov", ("ac3", 6)),
        ("a.mkv", "eac3", "5.1(side)", 48000, "o.avi", ("mp3", 2)),
        ("a.mkv", "flac", "5.1", 96000, "o.mp4", ("flac", 6)),
        ("a.mkv", "libopus", "5.1", 48000, "o.avi", ("mp3", 2)),
        ("a.mkv", "aac", "5.1", 48000, "o.webm", ("opus", 6)),
        ("a.mkv", "libmp3lame", "mono", 8000, "o.mp4", ("aac", 1)),
        ("a.avi", "adpcm_ima_wav", "stereo", 22050, "o.mkv", ("aac", 2)),
    ],
)
def test_sound_of_every_kind(
    tmp_path: Path, name: str, codec: str, layout: str, rate: int, target: str, expected: tuple[str, int]
) -> None:
    source = record(tmp_path / name, codec, layout, rate)
    notes = copy(source, tmp_path / target)
    found, channels, seconds, hertz = heard(tmp_path / target)
    assert (found.replace("mp3float", "mp3"), channels) == expected
    assert seconds == pytest.approx(1.0, abs=0.25)
    assert hertz == pytest.approx(440, abs=4)
    before = av.AudioLayout(layout).nb_channels
    assert bool(notes) == (found != {"libopus": "opus", "libmp3lame": "mp3"}.get(codec, codec))
    assert any(f"its {before} channels mixed to {channels}" in note for note in notes) == (channels < before)


def test_sound_that_changes_its_channels_is_converted_to_the_end(tmp_path: Path) -> None:
    parts = [
        record(tmp_path / f"{layout}.ts", "ac3", layout, rate, 2.0).read_bytes()
        for layout, rate in (("stereo", 48000), ("5.1(side)", 48000), ("mono", 44100))
    ]
    source = tmp_path / "a.ts"
    source.write_bytes(b"".join(parts))
    copy(source, tmp_path / "o.webm")
    assert heard(tmp_path / "o.webm")[:2] == ("opus", 2)
    assert heard(tmp_path / "o.webm")[2] == pytest.approx(6.0, abs=0.2)


def trim(path: Path, seconds: int) -> Path:
    """Cut the beginning of an mp4 away as phones do: by its edit lists (of the pictures and of the sound) alone."""
    data, at = bytearray(path.read_bytes()), 0
    for ticks_per_s in (12800, 48000):
        at = data.index(b"elst", at) + 12
        length, begin = struct.unpack_from(">Ii", data, at)
        struct.pack_into(">Ii", data, at, length - seconds * 1000, begin + seconds * ticks_per_s)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "o.avi", "o.webm"])
@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_sound_that_an_edit_list_cuts_away_stays_away(tmp_path: Path, codec: str, target: str) -> None:
    source = trim(record(tmp_path / "a.mp4", codec, "stereo", 48000, 6.0), 4)
    copy(source, tmp_path / target)
    assert heard(tmp_path / target)[2] == pytest.approx(2.0, abs=0.1)
    with VideoReader(tmp_path / target, threads=1) as reader:
        assert next(iter(reader)).time_s == pytest.approx(0, abs=0.05)


def silenced(source: Path, target: Path, begin: float, end: float) -> Path:
    """The same without the packets of sound from ``begin`` to ``end`` seconds."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        streams = [after.add_stream_from_template(stream) for stream in before.streams]
        for packet in before.demux():
            number = packet.stream.index
            if packet.size and not (number == 1 and begin <= packet.pts * packet.time_base < end):
                packet.stream = streams[number]
                after.mux(packet)
    return target


@pytest.mark.parametrize("pause", [(-1.0, 1.5), (1.0, 2.5), (0.0, 0.0)])
@pytest.mark.parametrize(
    ("codec", "target", "holds"),
    [
        ("aac", "o.avi", False),
        ("libopus", "o.avi", False),
        ("pcm_s16le", "o.avi", False),
        ("pcm_s16le", "o.mov", False),
        ("aac", "o.mov", True),
        ("pcm_s16le", "o.mkv", True),
    ],
)
def test_sound_that_comes_early_is_told(
    tmp_path: Path, codec: str, target: str, holds: bool, pause: tuple[float, float]
) -> None:
    source = record(tmp_path / "a.mkv", codec, "stereo", 48000, 3.0)
    notes = copy(silenced(source, tmp_path / "b.mkv", *pause), tmp_path / target)
    told = [float(found[1]) for found in re.finditer(r"sound comes up to (\S+) s early", " ".join(notes))]
    assert told == ([] if holds or not pause[1] else [pytest.approx(1.5, abs=0.11)])


@pytest.mark.parametrize(("end", "told"), [(2.5, ["sound comes up to 1.5 s early"]), (1.0, [])])
def test_a_pause_that_mp4_counts_to_the_packet_before_it_is_told(tmp_path: Path, end: float, told: list[str]) -> None:
    source = record(tmp_path / "a.mp4", "aac", "stereo", 48000, 3.0)
    notes = copy(silenced(source, tmp_path / "b.mp4", 1.0, end), tmp_path / "o.avi")
    assert [note.split(":")[0] for note in notes] == told


@pytest.mark.parametrize("target", ["o.mkv", "o.webm", "o.mp4"])
@pytest.mark.parametrize("chosen", [(0,), (1,), (0, 1), ()])
def test_the_track_that_plays_by_default_stays_it(tmp_path: Path, target: str, chosen: tuple[int, ...]) -> None:
    """One of them: players sound all tracks of an MP4 that are marked, at once."""
    source = tmp_path / "in.mkv"
    with av.open(str(record(tmp_path / "a.mkv", "aac", "mono", 48000))) as before, av.open(str(source), "w") as after:
        video, *tracks = [after.add_stream_from_template(before.streams[i]) for i in (0, 1, 1)]
        for number, track in enumerate(tracks):
            track.disposition = Disposition.default if number in chosen else Disposition(0)
        for packet in before.demux():
            if packet.size:
                content, number = bytes(packet), packet.stream.index
                for stream in tracks if number else [video]:
                    copied = Packet(content)
                    copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
                    copied.is_keyframe, copied.stream = packet.is_keyframe, stream
                    after.mux(copied)
    copy(source, tmp_path / target)
    with av.open(str(tmp_path / target)) as container:
        marked = [bool(stream.disposition & Disposition.default) for stream in container.streams.audio]
    first = min(chosen, default=0 if target == "o.mp4" else None)  # MP4 has always one
    assert marked == [number == first for number in range(2)]


def test_sound_for_which_nothing_works_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = record(tmp_path / "a.mkv", "pcm_s16le", "stereo", 48000)
    monkeypatch.setattr(audio_track, "audio_encoder", lambda path: "no-such-encoder")
    notes = copy(source, tmp_path / "o.mp4")
    assert notes == ["audio track 1 was left out: pcm_s16le can neither be copied to .mp4 nor converted"]
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio
        assert len(list(container.decode(video=0))) == 25


@pytest.mark.parametrize(
    ("count", "told"), [(1, "1 damaged packet of sound was"), (2, "2 damaged packets of sound were")]
)
def test_damaged_packets_are_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, told: str
) -> None:
    source = record(tmp_path / "a.mkv", "aac", "stereo", 48000)
    convert, seen = audio_track.Copied.convert, []

    def fail_at_first(self: audio_track.Copied, packet: Packet[Any], origin: Fraction) -> list[Packet[Any]]:
        seen.append(packet.pts)
        if len(seen) <= count:
            raise av.error.InvalidDataError(1, "damaged")
        return convert(self, packet, origin)

    monkeypatch.setattr(audio_track.Copied, "convert", fail_at_first)
    assert copy(source, tmp_path / "o.mp4") == [f"{told} left out"]
