"""Written videos: the frames' own times, the input's sound, and no half file under the final name."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cpnpose.errors import OptionError, OutputError
from cpnpose.media.frame_grid import grid_rate
from cpnpose.media.timing import FrameClock
from cpnpose.media.video import VideoReader, VideoWriter
from cpnpose.pose.types import Frame

Make = Callable[..., Path]


def copy(source: Path, target: Path, *, start: float = 0.0, end: float | None = None, **options: object) -> list[str]:
    """Read and write a video as the pipeline does; the writer's notes."""
    with VideoReader(source, threads=1, start=start, end=end) as reader:
        info = reader.info
        with VideoWriter(
            target,
            size=(info.height, info.width),
            time_base=reader.time_base,
            fps=info.fps,
            source=source,
            start=start,
            end=end,
            **options,
        ) as writer:
            for frame in reader:
                writer.write(frame, frame.image)
    return writer.notes


def times(path: Path) -> list[float]:
    with VideoReader(path, threads=1) as reader:
        return [f.time_s for f in reader]


def sound(path: Path, track: int = 0) -> list[tuple[float, int, bytes]]:
    """(seconds, size, content) of the packets of an audio track."""
    with av.open(str(path)) as container:
        return [(float(p.pts * p.time_base), p.size, bytes(p)) for p in container.demux(audio=track) if p.size]


def frames_of(images: list[np.ndarray], step: int = 512, base: Fraction = Fraction(1, 12800)) -> list[Frame]:
    return [Frame(i, i * step, base, float(i * step * base), image) for i, image in enumerate(images)]


def grey(count: int = 8, size: tuple[int, int] = (48, 64)) -> list[Frame]:
    return frames_of([np.full((*size, 3), 30 + 20 * i % 200, np.uint8) for i in range(count)])


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_variable_frame_times_are_kept_exactly(tmp_path: Path, make_video: Make) -> None:
    stamps = [0.0, 0.04, 0.05, 0.3, 0.301, 1.0, 1.5, 1.54, 1.58, 1.9]
    source = make_video(tmp_path / "in.mp4", count=10, times=stamps, time_base=Fraction(1, 90000))
    assert copy(source, tmp_path / "out.mp4") == []
    assert times(tmp_path / "out.mp4") == times(source)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *[("o.mp4", None), ("o.mp4", "hevc"), ("o.mp4", "av1"), ("o.mkv", None), ("o.mkv", "hevc")],
        *[("o.webm", None), ("o.gif", None)],
    ],
)
def test_the_last_frame_stays_as_long_as_in_the_input(tmp_path: Path, name: str, codec: str | None) -> None:
    stamps = [0, 10, 20, 120, 130, 140]
    frames = [
        Frame(i, pts, Fraction(1, 100), pts / 100, image.image, following - pts)
        for i, (pts, following, image) in enumerate(zip(stamps, [*stamps[1:], 440], grey(6), strict=True))
    ]
    source = tmp_path / "in.gif"
    with VideoWriter(source, size=(48, 64), time_base=Fraction(1, 100), fps=Fraction(4)) as writer:
        for frame in frames:
            writer.write(frame, frame.image)
    with VideoReader(source) as reader:
        assert [f.duration for f in reader] == [10, 10, 100, 10, 10, 300]
    with VideoReader(source, end=2.0) as reader:
        assert [f.duration for f in reader][-1] == 60
    assert copy(source, tmp_path / name, codec=codec) == []
    with av.open(str(tmp_path / name)) as container:
        assert container.duration == pytest.approx(4.4e6, abs=2e3)
    with VideoReader(tmp_path / name) as reader:
        assert len(list(reader)) == 6
        assert reader.notes == []  # that it seems to be cut off


def test_the_last_frame_of_avi_lasts_one_place(tmp_path: Path) -> None:
    images = grey(3)
    with VideoWriter(tmp_path / "o.avi", size=(48, 64), time_base=Fraction(1, 100), fps=Fraction(10)) as writer:
        for i, image in enumerate(images):
            writer.write(Frame(i, i * 10, Fraction(1, 100), i / 10, image.image, 300), image.image)
    with VideoReader(tmp_path / "o.avi") as reader:
        assert [f.time_s for f in reader] == [0.0, 0.1, 0.2]
        assert reader.notes == []
        assert reader.info.duration_s == pytest.approx(0.3)


@pytest.mark.parametrize(("fps", "told"), [(25, 0), (50, 0), (60, 1), (240, 1)])
def test_a_gif_that_browsers_slow_down_is_told(tmp_path: Path, make_video: Make, fps: int, told: int) -> None:
    source = make_video(tmp_path / "in.mp4", count=48, fps=fps, time_base=Fraction(1, 48000))
    notes = copy(source, tmp_path / "o.gif")
    assert [note.split(":")[0] for note in notes] == ["browsers show this GIF too slowly"] * told


SLOW_THEN_QUICK = [i / 5 for i in range(10)] + [2 + i / 60 for i in range(60)]
LONG_EXPOSURE = [i / 30 for i in range(60)] + [2 + i / 24 for i in range(48)] + [4 + i / 30 for i in range(60)]


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("stamps", [SLOW_THEN_QUICK, LONG_EXPOSURE])
def test_avi_keeps_the_times_of_a_variable_frame_rate(
    tmp_path: Path, make_video: Make, name: str, stamps: list[float]
) -> None:
    source = make_video(
        tmp_path / name, count=len(stamps), times=stamps, time_base=Fraction(1, 1000), audio=("aac",), fps=30
    )
    assert copy(source, tmp_path / "out.avi") == []
    with VideoReader(tmp_path / "out.avi", threads=1) as reader:
        frames = list(reader)
    assert [f.time_s for f in frames] == pytest.approx(stamps, abs=0.1)
    levels = [float(f.image.mean()) for f in frames[:20]]
    assert levels == pytest.approx([20 + 7 * i for i in range(20)], abs=3)


def test_avi_of_a_constant_frame_rate_keeps_it(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.mp4", count=20, audio=("aac",))
    copy(source, tmp_path / "out.avi")
    assert times(tmp_path / "out.avi") == pytest.approx([i / 25 for i in range(20)])
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.streams.video[0].average_rate == 25


def test_avi_of_a_raw_stream_has_its_frame_rate(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.h264", fps=50, time_base=Fraction(1, 50))
    assert copy(source, tmp_path / "o.avi") == []
    assert times(tmp_path / "o.avi") == pytest.approx(times(source))


def test_avi_of_recordings_that_were_joined_keeps_their_frame_rate(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.ts", count=40, time_base=Fraction(1, 90000), options={"bf": "2"})
    source.write_bytes(source.read_bytes() * 2)
    copy(source, tmp_path / "out.avi")
    assert times(tmp_path / "out.avi") == pytest.approx([i / 25 for i in range(80)])
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.streams.video[0].average_rate == 25


def test_the_frame_rate_of_an_avi_is_told_by_its_part_alone(
    tmp_path: Path, make_video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_video(tmp_path / "in.mp4", count=100)
    placed: list[float] = []
    stamp = FrameClock.stamp
    monkeypatch.setattr(FrameClock, "stamp", lambda *a: (placed.append(a[1]), stamp(*a))[1])
    assert grid_rate(source, 0.4, 0.8, Fraction(25)) == 25
    assert len(placed) <= 21


def test_pictures_that_come_late_in_avi_are_told(tmp_path: Path) -> None:
    frames = frames_of([f.image for f in grey(40)], step=128)  # 100 frames a second, when 25 were promised
    with VideoWriter(tmp_path / "o.avi", size=(48, 64), time_base=Fraction(1, 12800), fps=Fraction(25)) as writer:
        for frame in frames:
            writer.write(frame, frame.image)
    assert len(times(tmp_path / "o.avi")) == 40
    assert len(writer.notes) == 1
    assert "pictures come up to 1.2 s late" in writer.notes[0]
    assert ".mp4 or .mkv" in writer.notes[0]


@pytest.mark.parametrize(
    "base", [Fraction(1001, 30000), Fraction(1, 1_000_000_000), Fraction(1, 15360), Fraction(1, 7)]
)
def test_time_bases(tmp_path: Path, base: Fraction) -> None:
    step = max(1, round(Fraction(1, 7) / base))
    frames = frames_of([f.image for f in grey()], step, base)
    with VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=base) as writer:
        for frame in frames:
            writer.write(frame, frame.image)
    assert times(tmp_path / "out.mp4") == pytest.approx([f.time_s for f in frames], abs=2e-5)


def test_what_players_need(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, size=(48, 64), time_base=Fraction(1, 12800)) as writer:
        for frame in grey():
            writer.write(frame, frame.image)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert len(list(container.decode(stream))) == 8


def test_colours_survive(tmp_path: Path) -> None:
    image = np.full((48, 96, 3), 128, np.uint8)
    for column, colour in enumerate([(230, 20, 20), (20, 210, 30), (30, 30, 220), (250, 250, 250), (3, 3, 3)]):
        image[:, column * 16 : column * 16 + 16] = colour
    with VideoWriter(tmp_path / "out.mp4", size=(48, 96), time_base=Fraction(1, 25), crf=1) as writer:
        writer.write(Frame(0, 0, Fraction(1, 25), 0.0, image), image)
    with VideoReader(tmp_path / "out.mp4") as reader:
        result = next(iter(reader)).image
    assert np.abs(result[24, 8::16].astype(int) - image[24, 8::16]).max() <= 5


@pytest.mark.parametrize("size", [(47, 61), (48, 61), (47, 64), (1, 1)])
def test_odd_sizes_grow_by_a_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    with VideoWriter(tmp_path / "out.mp4", size=size, time_base=Fraction(1, 25)) as writer:
        writer.write(Frame(0, 0, Fraction(1, 25), 0.0, image), image)
    with VideoReader(tmp_path / "out.mp4") as reader:
        result = next(iter(reader)).image
    assert result.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(result.astype(int) - 200).max() < 6


def test_two_audio_tracks_are_copied_packet_by_packet(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.mp4", count=30, audio=("aac", "ac3"))
    assert copy(source, tmp_path / "out.mp4") == []
    for track in (0, 1):
        before, after = sound(source, track), sound(tmp_path / "out.mp4", track)
        assert [p[1:] for p in after] == [p[1:] for p in before]
        assert [p[0] for p in after] == pytest.approx([p[0] for p in before], abs=1e-4)


def test_sound_that_is_left_out_is_counted(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "a.mkv", time_base=Fraction(1, 1000), audio=("aac", "ac3"))
    notes = write_all(source, tmp_path / "o.gif").notes
    assert [note.split(":")[0] for note in notes] == ["audio track 1 was left out", "audio track 2 was left out"]


def write_all(source: Path, target: Path) -> VideoWriter:
    with VideoReader(source) as reader:
        size = (reader.info.height, reader.info.width)
        with VideoWriter(target, size=size, time_base=reader.time_base, source=source) as writer:
            for frame in reader:
                writer.write(frame, frame.image)
    return writer


def sound_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [float(p.pts * p.time_base) for p in container.demux(stream) if p.size]


@pytest.mark.parametrize("target", ["o.mp4", "o.webm"])
def test_damaged_sound_does_not_end_the_run(tmp_path: Path, make_video: Make, target: str) -> None:
    source = make_video(tmp_path / "a.ts", count=50, time_base=Fraction(1, 90000), audio=("aac",))
    data = bytearray(source.read_bytes())
    frames = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] & 0xF6 == 0xF0]  # ADTS headers
    for i in frames[20:40:4]:
        data[i : i + 7] = b"\xff\xf1\xff\xff\xff\xff\xff"
    source.write_bytes(data)
    writer = write_all(source, tmp_path / target)
    assert writer.frames_written == 50
    assert sound_of(tmp_path / target)[-1] > 1.8


def test_recordings_that_were_joined_keep_sound_and_picture(tmp_path: Path, make_video: Make) -> None:
    part = make_video(tmp_path / "a.ts", count=50, time_base=Fraction(1, 90000), audio=("aac",))
    source = tmp_path / "b.ts"
    source.write_bytes(part.read_bytes() * 2)
    writer = write_all(source, tmp_path / "o.mp4")
    assert writer.frames_written == 100
    times = sound_of(tmp_path / "o.mp4")
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(4.0, abs=0.1)
    with VideoReader(tmp_path / "o.mp4") as reader:
        assert [f.time_s for f in reader][-1] == pytest.approx(3.96, abs=0.1)


def test_sound_longer_than_the_picture_is_kept(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.mp4", count=10, audio=("aac",), audio_s=3.0)
    copy(source, tmp_path / "out.mp4")
    assert len(sound(tmp_path / "out.mp4")) == len(sound(source))


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2"])
def test_sound_that_does_not_fit_is_converted_and_said(tmp_path: Path, make_video: Make, codec: str) -> None:
    source = make_video(tmp_path / "in.mkv", count=50, audio=(codec,), time_base=Fraction(1, 1000))
    notes = copy(source, tmp_path / "out.mp4")
    assert len(notes) == 1
    assert "converted" in notes[0]
    assert "aac" in notes[0]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert len(heard) / 48000 == pytest.approx(2.0, abs=0.06)
    spectrum = np.abs(np.fft.rfft(heard[4800:52800]))
    assert int(spectrum.argmax()) == 440


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_start_and_end_cut_sound_and_picture_alike(tmp_path: Path, make_video: Make, name: str) -> None:
    source = make_video(tmp_path / "in.mp4", count=100, audio=("aac",), options={"g": "10"})
    copy(source, tmp_path / name, start=1.0, end=2.5)
    stamps = times(tmp_path / name)
    assert len(stamps) == 38
    assert stamps[0] == pytest.approx(0, abs=0.041)
    packets = sound(tmp_path / name)
    assert packets[0][0] == pytest.approx(0, abs=0.025)
    assert packets[-1][0] == pytest.approx(1.5, abs=0.03)
    contents = [p[2] for p in sound(source)]
    first = contents.index(packets[0][2])
    # What was heard at second 1 of the input is heard at second 0 of the output.
    assert sound(source)[first][0] - 1.0 == pytest.approx(packets[0][0], abs=0.002)


def test_offsets_between_sound_and_picture_stay(tmp_path: Path, make_video: Make) -> None:
    stamps = [5.5 + i / 25 for i in range(20)]
    source = make_video(tmp_path / "in.mkv", count=20, times=stamps, audio=("aac",), time_base=Fraction(1, 1000))
    copy(source, tmp_path / "out.mp4")
    lag = times(source)[0] - sound(source)[0][0]
    assert lag > 5
    assert times(tmp_path / "out.mp4")[0] - sound(tmp_path / "out.mp4")[0][0] == pytest.approx(lag, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("out.mkv", None, "h264"),
        ("out.mov", None, "h264"),
        ("out.webm", None, "vp9"),
        ("out.avi", None, "h264"),
        ("out.gif", None, "gif"),
        ("out.mp4", "hevc", "hevc"),
        ("out.mp4", "av1", "av1"),
    ],
)
def test_containers_and_codecs(tmp_path: Path, make_video: Make, name: str, codec: str | None, expected: str) -> None:
    source = make_video(tmp_path / "in.mp4", count=12, audio=("aac",), size=(64, 96))
    notes = copy(source, tmp_path / name, codec=codec)
    with av.open(str(tmp_path / name)) as container:
        decoder = container.streams.video[0].codec_context.codec.canonical_name
        tag = container.streams.video[0].codec_context.codec_tag
        tracks = len(container.streams.audio)
    assert decoder == expected
    assert tag == "hvc1" if expected == "hevc" else True
    assert tracks == (0 if name.endswith("gif") else 1)
    assert bool(notes) == (name in ("out.webm", "out.gif"))
    stamps = times(tmp_path / name)
    assert [t - stamps[0] for t in stamps] == pytest.approx([i / 25 for i in range(12)], abs=0.0051)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_very_short_videos(tmp_path: Path, codec: str, count: int) -> None:
    for attempt in range(3):
        path = tmp_path / f"{attempt}.mp4"
        with VideoWriter(path, size=(48, 64), time_base=Fraction(1, 12800), codec=codec) as writer:
            for frame in grey(count):
                writer.write(frame, frame.image)
        assert times(path) == pytest.approx([i / 25 for i in range(count)])


def test_no_file_under_the_final_name_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, size=(48, 64), time_base=Fraction(1, 12800)) as writer:
        for frame in grey():
            writer.write(frame, frame.image)
            assert not path.exists()
            assert [p for p in left_over(tmp_path) if p.endswith(".mp4")]
    assert left_over(tmp_path) == ["out.mp4"]
    writer.close()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 12800)) as writer:
            writer.write(grey()[0], grey()[0].image)
            raise RuntimeError("a stage broke")

    with pytest.raises(RuntimeError):
        fail()
    assert left_over(tmp_path) == []


def test_no_frames_leave_nothing(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 12800)):
        pass
    assert left_over(tmp_path) == []


def test_a_stopped_run_leaves_a_playable_file_up_to_there(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.mp4", count=100, audio=("aac",))

    def stop() -> None:
        with (
            VideoReader(source) as reader,
            VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=reader.time_base, source=source) as writer,
        ):
            for frame in reader:
                writer.write(frame, frame.image)
                if frame.index == 49:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(times(tmp_path / "out.mp4")) == 50
    assert sound(tmp_path / "out.mp4")[-1][0] == pytest.approx(2.0, abs=0.1)


def test_existing_files_and_the_input_are_safe(tmp_path: Path, make_video: Make) -> None:
    source = make_video(tmp_path / "in.mp4", count=3)
    before = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "old.mp4").write_bytes(b"precious")
    for name, overwrite, message in (
        ("in.mp4", True, "is the input"),
        ("link.mp4", True, "is the input"),
        ("old.mp4", False, "--overwrite"),
    ):
        with pytest.raises(OutputError, match=message):
            copy(source, tmp_path / name, overwrite=overwrite)
    assert source.read_bytes() == before
    assert (tmp_path / "old.mp4").read_bytes() == b"precious"
    copy(source, tmp_path / "old.mp4", overwrite=True)
    assert len(times(tmp_path / "old.mp4")) == 3
    assert left_over(tmp_path) == ["in.mp4", "link.mp4", "old.mp4"]


def test_a_file_that_appears_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, size=(48, 64), time_base=Fraction(1, 12800))
    writer.write(grey()[0], grey()[0].image)
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="meantime"):
        writer.close()
    assert path.read_bytes() == b"precious"
    assert left_over(tmp_path) == ["out.mp4"]


def test_full_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 96, 3)).astype(np.uint8)

    def fill() -> None:
        with VideoWriter(tmp_path / "out.mp4", size=(64, 96), time_base=Fraction(1, 12800), crf=1) as writer:
            for frame in frames_of(list(noise)):
                writer.write(frame, frame.image)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(OutputError, match="no space is left"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_over(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_folder_that_takes_no_files() -> None:
    with pytest.raises(OutputError, match=r"/proc/out\.mp4"):
        VideoWriter("/proc/out.mp4", size=(48, 64), time_base=Fraction(1, 25))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="may not be written"):
        VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25))


@pytest.mark.parametrize(
    ("name", "codec", "error"),
    [
        ("missing/out.mp4", None, OutputError),
        ("out.xyz", None, OutputError),
        ("out", None, OutputError),
        ("out.mp4", "no-such-codec", OptionError),
        ("out.mp4", "aac", OptionError),
        ("out.webm", "h264", OptionError),
    ],
)
def test_impossible_outputs(tmp_path: Path, name: str, codec: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        VideoWriter(tmp_path / name, size=(256, 256), time_base=Fraction(1, 25), codec=codec)
    assert left_over(tmp_path) == []


def test_an_encoder_that_the_machine_lacks_is_named(tmp_path: Path) -> None:
    # No device encodes pictures of two pixels, whatever is built into this machine.
    with pytest.raises(OptionError, match=r"h264_nvenc does not start here"):
        VideoWriter(tmp_path / "out.mp4", size=(2, 2), time_base=Fraction(1, 25), codec="h264_nvenc")
    assert left_over(tmp_path) == []


def test_equal_times_do_not_collide(tmp_path: Path) -> None:
    frames = frames_of([f.image for f in grey()], step=0)
    with VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 12800)) as writer:
        for frame in frames:
            writer.write(frame, frame.image)
    assert len(times(tmp_path / "out.mp4")) == len(frames)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25)) as writer,
        pytest.raises(ValueError, match="uint8"),
    ):
        writer.write(grey()[0], np.zeros((40, 64, 3), np.uint8))
