from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from cpnpose.errors import InputError, OutputError
from cpnpose.formats import JsonlWriter, JsonWriter, read_record
from cpnpose.formats.header import SCHEMA_FILE
from cpnpose.formats.jsonl_record import partial_path

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def whole(tmp_path, header, clip) -> bytes:
    """The record of an uninterrupted run."""
    path = tmp_path / "whole.jsonl"
    with JsonlWriter(path, header) as writer:
        for result in clip:
            writer.write(result)
    return path.read_bytes()


def test_header_first_then_a_line_per_frame_as_in_the_json(tmp_path, header, clip, whole):
    lines = [json.loads(line) for line in whole.splitlines()]
    schema = json.loads(SCHEMA_FILE.read_text())
    for definition, entries in (("header", lines[:1]), ("frame", lines[1:])):
        part = {"$defs": schema["$defs"], "$ref": f"#/$defs/{definition}"}
        for entry in entries:
            jsonschema.Draft202012Validator(part).validate(entry)
    with JsonWriter(tmp_path / "out.json", header) as writer:
        for result in clip:
            writer.write(result)
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["frames"] == lines[1:]
    assert lines[0].items() <= document.items()


def test_each_frame_is_on_disk_at_once_and_the_name_comes_last(tmp_path, header, clip):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path, header) as writer:
        for count, result in enumerate(clip, start=1):
            writer.write(result)
            assert partial_path(path).read_bytes().count(b"\n") == count + 1
        assert not path.exists()
    assert path.exists()
    assert not partial_path(path).exists()


@pytest.mark.parametrize("kept", [0, 10, 300, 0.3, 0.5, 0.8, 0.999, 1.0])
def test_resumed_record_equals_the_uninterrupted_one(tmp_path, header, clip, whole, kept, same_results):
    """The record is torn at any byte; the run goes on after the last whole frame."""
    path = tmp_path / "out.jsonl"
    length = kept if kept > 1 else int(kept * len(whole))
    partial_path(path).write_bytes(whole[:length])
    frames_left = max(whole[:length].count(b"\n") - 1, 0)
    with JsonlWriter(path, header, resume=True) as writer:
        point = writer.resume_point
        assert (0 if point is None else point.frames) == frames_left
        if point is not None:
            last = clip[frames_left - 1].frame
            assert (point.index, point.pts) == (last.index, last.pts)
            assert point.time_s == pytest.approx(last.time_s, abs=1e-6)
        for read, written in zip(writer.recorded(), clip[:frames_left], strict=True):
            same_results(read, written)
        for result in clip[frames_left:]:
            writer.write(result)
        assert writer.frames_written == len(clip)
        assert len(list(writer.recorded())) == frames_left
    assert path.read_bytes() == whole
    assert not partial_path(path).exists()


def test_a_finished_record_can_be_resumed_and_stays_the_same(tmp_path, header, clip, whole):
    path = tmp_path / "whole.jsonl"
    with JsonlWriter(path, header, resume=True) as writer:
        assert writer.resume_point is not None
        assert writer.resume_point.frames == len(clip)
    assert path.read_bytes() == whole


def test_resuming_nothing_starts_a_record(tmp_path, header, clip):
    with JsonlWriter(tmp_path / "out.jsonl", header, resume=True) as writer:
        assert writer.resume_point is None
        assert list(writer.recorded()) == []
        writer.write(clip[0])
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 2


def test_resuming_never_replaces_what_is_no_record(tmp_path, header):
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        JsonlWriter(tmp_path / "out.jsonl", header, resume=True)
    assert (tmp_path / "out.jsonl").read_text() == "precious"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": "other.mp4"}, "source.file"),
        ({"settings": {"detector": "person-detector", "score": 0.5, "flip": True}}, r"settings.score: 0.3 -> 0.5"),
        ({"settings": {"detector": "person-detector", "score": 0.3}}, "settings.flip"),
        ({"model": {"name": "cpn101"}}, "model.name"),
    ],
)
def test_resuming_another_run_is_refused_and_says_why(tmp_path, header, whole, change, named):
    path = tmp_path / "out.jsonl"
    partial_path(path).write_bytes(whole)
    with pytest.raises(OutputError, match=named):
        JsonlWriter(path, replace(header, **change), resume=True)
    with pytest.raises(OutputError, match="--overwrite in place of --resume"):
        JsonlWriter(path, replace(header, **change), resume=True)
    assert partial_path(path).read_bytes() == whole


def test_an_unfinished_record_is_not_lost_by_accident(tmp_path, header, clip):
    path = tmp_path / "out.jsonl"

    def interrupted():
        with JsonlWriter(path, header) as writer:
            writer.write(clip[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    assert len(list(read_record(partial_path(path))[1])) == 1
    with pytest.raises(OutputError, match="--resume"):
        JsonlWriter(path, header)
    with pytest.raises(OutputError, match="Rename it to keep it"):  # a run over the whole clip cannot be resumed
        JsonlWriter(path, replace(header, settings={"person": "largest"}))
    with JsonlWriter(path, header, overwrite=True) as writer:
        assert writer.resume_point is None
    assert len(list(read_record(path)[1])) == 0


def test_a_run_that_fails_before_its_first_frame_leaves_nothing(tmp_path, header):
    def run():
        with JsonlWriter(tmp_path / "out.jsonl", header):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run()
    assert list(tmp_path.iterdir()) == []


def test_discard_leaves_nothing(tmp_path, header, clip):
    with JsonlWriter(tmp_path / "out.jsonl", header) as writer:
        writer.write(clip[0])
        writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_existing_record_is_kept_unless_overwritten(tmp_path, header, whole):
    with pytest.raises(OutputError, match="--overwrite"):
        JsonlWriter(tmp_path / "whole.jsonl", header)
    assert (tmp_path / "whole.jsonl").read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_one_run_at_a_time(tmp_path, header, clip, whole, how):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path, header) as writer:
        for result in clip[:2]:
            writer.write(result)
        with pytest.raises(OutputError, match="is being written by another run"):
            JsonlWriter(path, header, **{how: True})
        for result in clip[2:]:
            writer.write(result)
    assert path.read_bytes() == whole


def test_text_stream_gets_the_same_lines(header, clip, whole):
    stream = io.StringIO()
    with JsonlWriter(stream, header) as writer:
        for result in clip:
            writer.write(result)
    assert stream.getvalue().encode() == whole
    assert not stream.closed


def test_broken_line_in_the_middle_is_an_error(tmp_path, header, whole):
    lines = whole.splitlines(keepends=True)
    lines[2] = lines[2][:50] + b"\n"
    partial_path(tmp_path / "out.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(InputError, match="line 3"):
        JsonlWriter(tmp_path / "out.jsonl", header, resume=True)


def test_error_in_the_middle_of_a_line_leaves_whole_lines(tmp_path, header, clip, whole):
    path = tmp_path / "out.jsonl"

    def run():
        with JsonlWriter(path, header) as writer:
            writer.write(clip[0])
            writer._binary.write(b'{"index":1,"pt')
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run()
    assert partial_path(path).read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_told(tmp_path, header):
    partial_path(tmp_path / "out.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"no space is left .*choose another place"):
        JsonlWriter(tmp_path / "out.jsonl", header, overwrite=True)
    assert list(tmp_path.iterdir()) == []


SLOW_RUN = """
import sys, time
from pathlib import Path
from cpnpose.formats import JsonlWriter, read_record
source, target = sys.argv[1:]
header, frames = read_record(source)
frames = list(frames)
with JsonlWriter(target, header, resume=True) as writer:
    done = 0 if writer.resume_point is None else writer.resume_point.frames
    for result in (frames * 40)[done:]:
        writer.write(result)
        time.sleep(0.001)
"""


def test_killed_at_any_moment_and_resumed(tmp_path, whole):
    """kill -9 twice, then a run to the end: the record equals that of one run."""
    target = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", SLOW_RUN, str(tmp_path / "whole.jsonl"), str(target)]
    for frames_before in (30, 120):
        process = subprocess.Popen(command, cwd=ROOT)
        for _ in range(2000):
            if partial_path(target).exists() and partial_path(target).read_bytes().count(b"\n") > frames_before:
                break
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not target.exists()
    subprocess.run(command, cwd=ROOT, check=True)
    head, *lines = whole.splitlines(keepends=True)
    assert target.read_bytes() == head + b"".join(lines * 40)
