"""Inputs of all kinds through the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cpnpose.pose.types import Frame

Run = Callable[..., Any]
MakeFrames = Callable[..., list[Frame]]


def encode(
    path: Path, frames: list[Frame], codec: str, pixel_format: str, audio_tracks: int = 0, **options: str
) -> Path:
    """Write a video of 25 frames per second with FFmpeg directly."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=options)
        video.height, video.width = frames[0].image.shape[:2]
        video.pix_fmt = pixel_format
        sounds = [container.add_stream("aac", rate=48000, layout="mono") for _ in range(audio_tracks)]
        for sound in sounds:
            for start in range(0, len(frames) * 1920, 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                silence.sample_rate, silence.pts, silence.time_base = 48000, start, Fraction(1, 48000)
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.image, "rgb24").reformat(format=pixel_format)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path


def look_at(path: Path) -> tuple[int, tuple[int, int], int]:
    """Number of frames, (height, width), number of sound tracks."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.video[0]))
        return len(frames), (frames[0].height, frames[0].width), len(container.streams.audio)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "size", "tracks"),
    [
        ("odd.mkv", "ffv1", "yuv444p", (47, 63), 0),
        ("tracks.mp4", "libx264", "yuv420p", (48, 64), 2),
        ("deep.mp4", "libx265", "yuv420p10le", (64, 96), 0),
        ("old.avi", "mpeg4", "yuv420p", (48, 64), 0),
        ("web.webm", "libvpx-vp9", "yuv420p", (48, 64), 0),
        ("moving.gif", "gif", "rgb8", (48, 64), 0),
    ],
)
def test_kinds_of_video(
    cpnpose: Run,
    make_frames: MakeFrames,
    tmp_path: Path,
    name: str,
    codec: str,
    pixel_format: str,
    size: tuple[int, int],
    tracks: int,
) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    source = encode(tmp_path / name, make_frames(6, *size), codec, pixel_format, tracks, **quiet)
    done = cpnpose("video", source, "--out", tmp_path / "out.mp4", "--json")
    assert done.exit_code == 0, done.stderr
    count, (height, width), sounds = look_at(tmp_path / "out.mp4")
    assert count == look_at(source)[0] == 6
    assert (height - size[0], width - size[1]) == (size[0] % 2, size[1] % 2)
    assert sounds == tracks
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["source"]["height"], document["source"]["width"]) == size
    assert len(document["frames"]) == 6


def test_a_single_frame(cpnpose: Run, make_frames: MakeFrames, tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", make_frames(1), "libx264", "yuv420p")
    assert cpnpose("video", source, "--out", tmp_path / "out.mp4").exit_code == 0
    assert look_at(tmp_path / "out.mp4")[0] == 1


def test_a_truncated_file_gives_what_there_is(cpnpose: Run, make_frames: MakeFrames, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", make_frames(60), "libx264", "yuv420p", g="5")
    source = tmp_path / "in.mkv"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    done = cpnpose("video", source, "--out", tmp_path / "out.mp4", "--json")
    assert done.exit_code == 0, done.stderr
    count = look_at(tmp_path / "out.mp4")[0]
    assert 20 < count < 60
    assert len(json.loads((tmp_path / "out.json").read_text())["frames"]) == count


@pytest.mark.parametrize("content", [b"", b"just some text\n", b"\x00" * 4000])
def test_what_is_no_video_leaves_nothing(cpnpose: Run, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(content)
    done = cpnpose("video", source, "--out", tmp_path / "out.mp4", "--json", "--jsonl", "--csv")
    assert done.exit_code == 3
    assert done.stderr.startswith("cpnpose: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_error_while_it_runs_leaves_no_half_file(
    cpnpose: Run, make_frames: MakeFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpnpose.errors import OutputError
    from cpnpose.media.video import VideoWriter

    source = encode(tmp_path / "in.mp4", make_frames(9), "libx264", "yuv420p")
    write = VideoWriter.write

    def full_disk(self: VideoWriter, frame: Frame, image: Any) -> None:
        if frame.index == 4:
            raise OutputError("out.mp4: no space is left. Free some.")
        write(self, frame, image)

    monkeypatch.setattr(VideoWriter, "write", full_disk)
    done = cpnpose("video", source, "--out", tmp_path / "out.mp4", "--json", "--csv")
    assert done.exit_code == 4
    assert "no space is left" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_name_that_is_no_utf8(cpnpose: Run, clip: Path, tmp_path: Path, odd_name: Callable[[str], str]) -> None:
    source = tmp_path / odd_name(".mp4")
    source.write_bytes(clip.read_bytes())
    done = cpnpose("video", source, "--out", tmp_path / odd_name("o.mp4"), "--json", "--jsonl", "--csv")
    assert done.exit_code == 0, done.stderr
    assert str(tmp_path / r"\xffo.jsonl") in done.stderr
    record = tmp_path / odd_name("o.jsonl")
    header, *frames = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    assert header["source"]["file"] == r"\xff.mp4"
    assert len(frames) == 12
    again = cpnpose("video", source, "--out", tmp_path / odd_name("o.mp4"), "--jsonl", "--resume")
    assert again.exit_code == 0, again.stderr
    for command in (("convert", record, "--to", "trc"), ("report", record), ("smooth", record)):
        done = cpnpose(*command, networks=False)
        assert done.exit_code == 0, done.stderr
    assert cpnpose("render", record, source, "--overwrite", networks=False).exit_code == 0
    missing = [tmp_path / odd_name(f"{number}.mp4") for number in (1, 2)]
    done = cpnpose("video", *missing, "--json")
    assert done.exit_code == 3
    assert done.stderr.count(str(tmp_path / r"\xff")) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no names there")
def test_a_pipe(cpnpose: Run, make_frames: MakeFrames, tmp_path: Path) -> None:
    clip = encode(tmp_path / "in.mkv", make_frames(12), "libx264", "yuv420p", audio_tracks=1)
    for name in ("o.mp4", "o.avi"):
        with subprocess.Popen(["cat", clip], stdout=subprocess.PIPE) as writing:
            assert writing.stdout is not None
            done = cpnpose("video", f"/dev/fd/{writing.stdout.fileno()}", "--out", tmp_path / name)
        assert done.exit_code == 0, done.stderr
        assert "12 frames in = 12 frames out" in done.stderr
        assert "the sound of a live stream or pipe is not recorded" in done.stderr


def test_where_no_video_could_be_read_no_other_is_said_to_be_done(cpnpose: Run, tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for source in sources:
        source.write_text("no video")
    done = cpnpose("video", *sources, "--json")
    assert done.exit_code == 3
    assert "2 of 2 videos could not be read" in done.stderr
    assert "the others" not in done.stderr
