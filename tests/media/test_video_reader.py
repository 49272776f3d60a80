"""Every decoded frame once, at its own time, upright and in the right colours, whatever the file is like."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available

from cpnpose.errors import InputError, OptionError
from cpnpose.media.color import display_matrix, rotation_of
from cpnpose.media.timing import FrameClock
from cpnpose.media.video import VideoReader
from cpnpose.pose.types import Frame

Make = Callable[..., Path]


def read(path: Path, **options: object) -> list[Frame]:
    with VideoReader(path, threads=1, **options) as reader:
        return list(reader)


def corners(height: int = 48, width: int = 80) -> np.ndarray:
    """An image whose upper left, upper right and lower left quarters are red, green and blue; the rest is grey."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 2, : width // 2] = (220, 30, 30)
    image[: height // 2, width // 2 :] = (30, 200, 30)
    image[height // 2 :, : width // 2] = (30, 30, 220)
    return image


def test_frames_come_once_with_index_and_time(tmp_path: Path, make_video: Make) -> None:
    frames = read(make_video(tmp_path / "a.mp4", count=12, options={"bf": "2", "g": "5"}))
    assert [f.index for f in frames] == list(range(12))
    assert [f.time_s for f in frames] == pytest.approx([i / 25 for i in range(12)])
    assert all(f.time_s == float(f.pts * f.time_base) for f in frames)
    grey = [float(f.image.mean()) for f in frames]
    assert grey == pytest.approx([20 + 7 * i for i in range(12)], abs=3)
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8


def test_info(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.mp4", audio=("aac",))
    with VideoReader(path) as reader:
        info = reader.info
    assert (info.height, info.width, info.fps, info.frame_count) == (48, 64, 25, 10)
    assert (info.rotation, info.has_audio, info.source) == (0, True, str(path))
    assert info.duration_s == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.hevc", "libx265"), ("a.m4v", "mpeg4")])
def test_raw_streams_have_the_frame_rate_of_their_pictures(
    tmp_path: Path, make_video: Make, name: str, codec: str
) -> None:
    with VideoReader(make_video(tmp_path / name, fps=50, time_base=Fraction(1, 50), codec=codec)) as reader:
        assert reader.info.fps == 50
        assert [f.time_s for f in reader] == pytest.approx([i / 50 for i in range(10)])


def test_variable_frame_rate_is_kept(tmp_path: Path, make_video: Make) -> None:
    times = [0.0, 0.04, 0.08, 0.3, 0.31, 1.0, 1.5]
    frames = read(make_video(tmp_path / "a.mp4", count=7, times=times))
    assert [f.time_s for f in frames] == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotated_and_mirrored_pictures_come_upright(
    tmp_path: Path, make_video: Make, rotation: int, mirrored: bool
) -> None:
    upright = corners()
    # FFmpeg's display matrix first turns clockwise, then mirrors: undo it in the opposite order.
    stored = np.rot90(upright[:, ::-1] if mirrored else upright, rotation // 90)
    path = make_video(
        tmp_path / "a.mp4", images=[np.ascontiguousarray(stored)] * 2, rotation=rotation, mirrored=mirrored
    )
    with VideoReader(path) as reader:
        image = next(iter(reader)).image
        assert (reader.info.height, reader.info.width) == upright.shape[:2]
        if not mirrored:
            assert reader.info.rotation == rotation
    assert image.flags.c_contiguous
    for y, x in ((10, 10), (10, 70), (40, 10), (40, 70)):
        assert np.abs(image[y, x].astype(int) - upright[y, x]).max() < 12


def test_sample_aspect_ratio_makes_square_pixels(tmp_path: Path, make_video: Make) -> None:
    wide = read(make_video(tmp_path / "a.mp4", images=[corners()], aspect=Fraction(2, 1)))[0].image
    tall = read(make_video(tmp_path / "b.mp4", images=[corners()], aspect=Fraction(1, 2)))[0].image
    assert wide.shape == (48, 160, 3)
    assert tall.shape == (96, 80, 3)
    assert np.abs(wide[10, 10].astype(int) - (220, 30, 30)).max() < 12


@pytest.mark.parametrize(("matrix", "color_range"), [(1, 1), (1, 2), (5, 1), (5, 2), (9, 1)])
def test_colour_matrix_and_range(tmp_path: Path, make_video: Make, matrix: int, color_range: int) -> None:
    images = [corners()]
    path = make_video(tmp_path / "a.mp4", images=images, matrix=matrix, color_range=color_range, pixel_format="yuv444p")
    difference = read(path)[0].image.astype(int) - images[0]
    assert np.abs(difference).max() <= 6
    assert abs(difference.mean()) < 1.6


def test_ten_bit_hevc(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.mp4", images=[corners()] * 3, codec="libx265", pixel_format="yuv420p10le")
    frames = read(path)
    assert len(frames) == 3
    assert np.abs(frames[0].image[10, 10].astype(int) - (220, 30, 30)).max() < 8


def pq_signal(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, the inverse EOTF."""
    y = (nits / 10000.0) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def test_hdr_is_neither_washed_out_nor_clipped(tmp_path: Path, make_video: Make) -> None:
    nits = np.repeat(np.array([0.005, 5.0, 50.0, 203.0, 600.0, 1500.0]), 16)
    signal = np.round(pq_signal(nits) * 65535).astype(np.uint16)
    image = np.broadcast_to(signal[None, :, None], (32, len(nits), 3)).copy()
    path = make_video(
        tmp_path / "a.mp4",
        images=[image],
        codec="libx265",
        pixel_format="yuv420p10le",
        matrix=9,
        primaries=9,
        transfer=16,
    )
    grey = read(path)[0].image[16, 8::16].astype(int)
    assert np.ptp(grey, axis=1).max() <= 2
    level = grey.mean(axis=1)
    assert (np.diff(level) > 3).all()
    assert level[0] < 5
    assert 200 < level[3] < 240
    assert level[2] == pytest.approx(255 * (0.8 * 50 / 203) ** (1 / 2.4), abs=4)
    assert level[5] <= 255


def hlg_signal(light: np.ndarray) -> np.ndarray:
    """BT.2100 HLG of display light where 1 is 203 cd/m2, for a display of 1000 cd/m2 and gamma 1.2 per channel."""
    scene = (light * 0.203) ** (1 / 1.2)
    above = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), above)


def test_hlg_grey_and_colour(tmp_path: Path, make_video: Make) -> None:
    light_709 = np.array([0.40, 0.15, 0.08])
    bt709_to_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    image = np.full((32, 64, 3), round(0.75 * 65535), np.uint16)
    image[:, 32:] = np.round(hlg_signal(bt709_to_bt2020 @ light_709) * 65535)
    tags = {"matrix": 9, "primaries": 9, "transfer": 18}
    path = make_video(tmp_path / "a.mkv", images=[image], codec="libx265", pixel_format="yuv420p10le", **tags)
    picture = read(path)[0].image.astype(int)
    assert 200 < picture[16, 16].mean() < 240
    assert np.ptp(picture[16, 16]) <= 2
    assert picture[16, 48] == pytest.approx(255 * (0.8 * light_709) ** (1 / 2.4), abs=4)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.gif", "gif", "rgb8"), ("a.mkv", "ffv1", "gray"), ("a.mkv", "ffv1", "bgra"), ("a.avi", "mpeg4", "yuv420p")],
)
def test_other_containers_and_pixel_formats(
    tmp_path: Path, make_video: Make, name: str, codec: str, pixel_format: str
) -> None:
    base = Fraction(1, 25) if name == "a.avi" else Fraction(1, 1000)
    path = make_video(tmp_path / name, count=5, fps=25, codec=codec, pixel_format=pixel_format, time_base=base)
    frames = read(path)
    assert len(frames) == 5
    assert [f.time_s - frames[0].time_s for f in frames] == pytest.approx([i / 25 for i in range(5)], abs=1e-3)
    assert float(frames[4].image.mean()) == pytest.approx(48, abs=16 if name == "a.gif" else 3)


def test_h264_in_avi_comes_at_its_own_times(tmp_path: Path, make_video: Make) -> None:
    times = [0, 0.04, 0.08, 0.8, 0.84, 1.2]
    path = make_video(tmp_path / "a.avi", count=6, times=times, time_base=Fraction(1, 25), options={"bf": "0"})
    assert [f.time_s for f in read(path)] == pytest.approx(times)


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    import av

    rgba = np.full((32, 32, 4), 200, np.uint8)
    rgba[:, 16:, 3] = 0
    rgba[:, :16, 3] = 255
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgra"
        frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="bgra")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = read(tmp_path / "a.mkv")[0].image
    assert (image[:, 16:] == 0).all()
    assert (image[:, :16] == 200).all()


def test_odd_size(tmp_path: Path, make_video: Make) -> None:
    frames = read(make_video(tmp_path / "a.mp4", size=(47, 61), pixel_format="yuv444p"))
    assert frames[0].image.shape == (47, 61, 3)


def test_start_end_every(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.mp4", count=30, options={"g": "8", "bf": "2"})
    assert [f.index for f in read(path, start=0.4, end=0.8)] == list(range(10, 20))
    frames = read(path, start=0.4, end=0.8, every=4)
    assert [f.index for f in frames] == [10, 14, 18]
    assert [f.time_s for f in frames] == pytest.approx([0.4, 0.56, 0.72])
    assert [float(f.image.mean()) for f in frames] == pytest.approx([20 + 7 * i for i in (10, 14, 18)], abs=3)
    assert [f.index for f in read(path, every=10)] == [0, 10, 20]
    assert [f.index for f in read(path, end=0.1)] == [0, 1, 2]


def test_start_counts_from_the_beginning_of_a_transport_stream(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.ts", count=30, time_base=Fraction(1, 90000), times=[3 + i / 25 for i in range(30)])
    everything = read(path)
    assert len(everything) == 30
    assert everything[0].time_s == pytest.approx(3)
    part = read(path, start=0.4)
    assert [f.index for f in part] == list(range(10, 30))
    assert part[0].pts == everything[10].pts


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.ts", "libx264", {"bf": "3"}),
        ("a.ts", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("a.m2ts", "mpeg2video", {"bf": "2"}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
        ("a.vob", "mpeg2video", {"bf": "2"}),
        ("a.mpg", "mpeg1video", {"bf": "2"}),
        ("a.h264", "libx264", {"bf": "3"}),
        ("a.h264", "libx264", {"bf": "0"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.avi", "libx264", {"bf": "0"}),
        ("a.mp4", "libx264", {"bf": "3"}),
        ("a.mkv", "libx264", {"bf": "3"}),
    ],
)
def test_start_finds_the_frames_of_the_whole_file(
    tmp_path: Path, make_video: Make, name: str, codec: str, options: dict[str, str]
) -> None:
    options |= {"g": "50", "sc_threshold": "0" if codec == "libx264" else "1000000000"}
    path = make_video(tmp_path / name, count=130, codec=codec, time_base=Fraction(1, 25), options=options)
    everything = read(path)
    assert len(everything) == 130
    begin = everything[0].time_s if name[-2:] in ("ts", "pg", "ob") else 0.0
    for start in (0.5, 1.5, 1.96, 2.0, 3.0, 4.7):
        expected = [f for f in everything if f.time_s >= begin + start - 1e-6]
        part = read(path, start=start)
        assert [(f.index, f.pts) for f in part] == [(f.index, f.pts) for f in expected]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(part, expected, strict=True))


def test_start_in_recordings_that_were_joined(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.ts", count=75, time_base=Fraction(1, 90000), options={"g": "25", "bf": "2"})
    path.write_bytes(path.read_bytes() * 2)
    everything = read(path)
    assert len(everything) == 150
    for start in (0.5, 2.9, 3.5, 5.0):
        part = read(path, start=start)
        assert [f.index for f in part] == [f.index for f in everything if f.time_s >= everything[0].time_s + start]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_start_decodes_one_group_of_pictures_at_most(
    tmp_path: Path, make_video: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    base = {"a.ts": Fraction(1, 90000), "a.avi": Fraction(1, 25)}.get(name, Fraction(1, 1000))
    options = {"g": "20", "bf": "0" if name == "a.avi" else "2", "sc_threshold": "0"}
    path = make_video(tmp_path / name, count=100, time_base=base, options=options)
    decoded = []
    stamp = FrameClock.stamp
    monkeypatch.setattr(FrameClock, "stamp", lambda *a: (decoded.append(a), stamp(*a))[1])
    assert [f.index for f in read(path, start=3.4, end=3.6)] == list(range(85, 90))
    assert len(decoded) <= 11  # 80 to 89, and the one at which it ends


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no names there")
@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_a_pipe_is_read_once(tmp_path: Path, make_video: Make, name: str) -> None:
    """Whatever was read to look for the start would be gone."""
    base = Fraction(1, 90000 if name == "a.ts" else 1000)
    noise = np.random.default_rng(0).integers(0, 255, (75, 48, 64, 3)).astype(np.uint8)
    path = make_video(tmp_path / name, images=list(noise), time_base=base, options={"g": "25"})
    expected = [f.index for f in read(path, start=2.0)]
    assert len(expected) == 25
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as writing:
        assert writing.stdout is not None
        with VideoReader(f"/dev/fd/{writing.stdout.fileno()}", start=2.0, threads=1) as reader:
            assert [f.index for f in reader] == expected
            assert reader.info.live


def test_impossible_options() -> None:
    with pytest.raises(OptionError):
        VideoReader("a.mp4", every=0)
    with pytest.raises(OptionError):
        VideoReader("a.mp4", start=-1)
    with pytest.raises(OptionError):
        VideoReader("a.mp4", start=3, end=2)
    with pytest.raises(OptionError, match="end must be"):
        VideoReader("a.mp4", end=float("inf"))


def test_closing_early_ends_where_the_log_of_pyav_is_on(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.mp4")
    code = f"""
import av
from cpnpose.media.video import VideoReader
av.logging.set_level(av.logging.DEBUG)  # torchvision did so up to 0.25, for errors
for _ in range(20):
    VideoReader({str(path)!r}, threads=4).close()
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60
    )  # a lock that is held stops the clock of pytest


def test_one_frame(tmp_path: Path, make_video: Make) -> None:
    assert len(read(make_video(tmp_path / "a.mp4", count=1))) == 1


def test_a_name_with_a_colon_is_a_path(tmp_path: Path, make_video: Make) -> None:
    made = make_video(tmp_path / "a.mp4", count=2)
    assert len(read(made.rename(tmp_path / "12:30 käse.mp4"))) == 2


def test_truncated_file_is_read_to_its_end(tmp_path: Path, make_video: Make) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3)).astype(np.uint8)
    options = {"movflags": "+faststart"}
    path = make_video(tmp_path / "a.mp4", images=list(noise), options={"g": "4"}, container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    for threads in (1, 4):  # several threads swallow the decoder's errors
        with VideoReader(path, threads=threads) as reader:
            frames = list(reader)
        assert 8 <= len(frames) < 20
        assert [f.index for f in frames] == list(range(len(frames)))
        assert reader.damaged >= 1
        assert len(reader.notes) == 1
        assert "the header says 0.80 s: the file seems to be cut off" in reader.notes[0]


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_truncated_matroska_file_without_sound_is_told(tmp_path: Path, make_video: Make, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3)).astype(np.uint8)
    codec = {"codec": "libvpx-vp9"} if name == "a.webm" else {}
    path = make_video(tmp_path / name, images=list(noise), **codec)
    with VideoReader(path) as reader:
        assert len(list(reader)) == 20
        assert reader.notes == []
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with VideoReader(path) as reader:
        assert 2 <= len(list(reader)) < 15
        assert "the file seems to be cut off" in reader.notes[0]


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_truncated_matroska_file_with_sound_is_told(
    tmp_path: Path, make_video: Make, name: str, tagged: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3)).astype(np.uint8)
    codec = {"codec": "libvpx-vp9", "audio": ("libopus",)} if name == "a.webm" else {"audio": ("aac",)}
    path = make_video(tmp_path / name, images=list(noise), time_base=Fraction(1, 1000), audio_s=3.0, **codec)
    if not tagged:  # as written by programs that do not say how long each stream is
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"SOMEWHAT"))
    with VideoReader(path) as reader:
        assert len(list(reader)) == 60
        assert reader.notes == []
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with VideoReader(path) as reader:
        assert 2 <= len(list(reader)) < 45
        assert len(reader.notes) == 1
        assert f"the header says {2.4 if tagged else 3.0:.1f}" in reader.notes[0]
        assert "the file seems to be cut off" in reader.notes[0]


def test_a_whole_file_is_not_called_cut_off(tmp_path: Path, make_video: Make) -> None:
    times = [0, 0.04, 0.05, 0.3, 0.301, 1, 1.5, 1.54, 1.58, 3.9]
    for name in ("a.mp4", "a.mkv", "a.ts"):
        base = Fraction(1, 90000 if name == "a.ts" else 1000)
        path = make_video(tmp_path / name, times=times, time_base=base, audio=("aac",), audio_s=9.0)
        for data in (path.read_bytes(), path.read_bytes().replace(b"DURATION", b"SOMEWHAT")):
            path.write_bytes(data)
            with VideoReader(path) as reader:
                assert len(list(reader)) == 10
            assert (reader.damaged, reader.notes) == (0, [])


def test_damaged_packets_are_counted_and_skipped(tmp_path: Path, make_video: Make) -> None:
    images = list(np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3)).astype(np.uint8))
    path = make_video(tmp_path / "a.mkv", images=images, codec="mjpeg", pixel_format="yuvj420p", color_range=2)
    data = bytearray(path.read_bytes())
    starts = [
        i
        for i in range(len(data) - 3)
        if data[i : i + 4] == b"\xff\xd8\xff\xfe" or data[i : i + 4] == b"\xff\xd8\xff\xdb"
    ]
    assert len(starts) == 20
    for i in (5, 11):
        data[starts[i] : starts[i] + 600] = bytes(600)
    path.write_bytes(data)
    with VideoReader(path, threads=1) as reader:
        frames = list(reader)
        assert reader.damaged == 2
    assert len(frames) == 18
    missing = set(range(20)) - {round(f.time_s * 25) for f in frames}
    assert missing == {5, 11}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.mp4", b"this is no video\n" * 50),
        ("empty.mp4", b""),
        ("text.avi", b"hello"),
        ("noise.mkv", bytes(range(256)) * 9),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        VideoReader(tmp_path / name)


def test_missing_file_folder_and_sound_only(tmp_path: Path, make_video: Make) -> None:
    with pytest.raises(InputError, match=r"no such file. Check"):
        VideoReader(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="is a folder"):
        VideoReader(tmp_path)


def test_zero_frames(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.avi", images=[], codec="mpeg4", time_base=Fraction(1, 25))
    assert path.stat().st_size > 0
    with pytest.raises(InputError, match=r"a\.avi"):
        VideoReader(path)


def test_start_behind_the_end_is_said(tmp_path: Path, make_video: Make) -> None:
    with pytest.raises(InputError, match="earlier start"):
        VideoReader(make_video(tmp_path / "a.mp4"), start=9)


@pytest.mark.parametrize("part", [{"end": 1.5}, {"start": 0.5, "end": 1.5}, {"start": 2.5, "end": 3.5}])
def test_a_part_between_frames_is_said(tmp_path: Path, make_video: Make, part: dict[str, float]) -> None:
    path = make_video(tmp_path / "a.mkv", times=[2.0, 4.0], count=2, time_base=Fraction(1, 1000), audio=("aac",))
    with pytest.raises(InputError, match=r"no frame from .* s to .* s\. Give a later end"):
        VideoReader(path, **part)


def test_hardware_that_is_not_there_falls_back(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "a.mp4")
    for device in hwdevices_available():
        with VideoReader(path, hwaccel=device) as reader:
            assert len(list(reader)) == 10
            assert (reader.hwaccel is None) == any("in software" in note for note in reader.notes)
    with pytest.raises(OptionError, match="no-such-device"):
        VideoReader(path, hwaccel="no-such-device")


def test_still_picture_as_video(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), corners()[..., ::-1])
    assert np.array_equal(read(tmp_path / "a.png")[0].image, corners())


class _FrameWithUnknownSideData:
    """As PyAV 18 gives frames with side data whose type it does not know."""

    def __init__(self, rotation: int) -> None:
        self.rotation = rotation

    @property
    def side_data(self) -> None:
        raise ValueError("31 is not a valid Type")


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_beside_side_data_that_pyav_does_not_know(degrees: int) -> None:
    counterclockwise = -degrees if degrees <= 180 else 360 - degrees
    matrix = display_matrix(_FrameWithUnknownSideData(counterclockwise))  # type: ignore[arg-type]
    assert rotation_of(matrix) == degrees
    assert matrix[0] * matrix[3] - matrix[1] * matrix[2] == 1  # no mirror image


def test_motion_jpeg_with_exif(tmp_path: Path) -> None:
    """Cameras write it so; FFmpeg hands the EXIF out with the frames."""
    jpeg = cv2.imencode(".jpg", corners()[..., ::-1])[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 1, 0, 0)
    block = b"Exif\0\0" + tiff
    picture = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    (tmp_path / "a.mjpeg").write_bytes(picture * 3)
    frames = read(tmp_path / "a.mjpeg")
    assert len(frames) == 3
    assert np.abs(frames[0].image.astype(int) - corners()).mean() < 5
