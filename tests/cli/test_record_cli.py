"""``convert``, ``track``, ``smooth`` and ``render`` on records of two people who walk past each other."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cpnpose.cli.main import build_app
from cpnpose.formats import Header, JsonlWriter, JsonWriter, read_record
from cpnpose.media.video import VideoReader, VideoWriter
from cpnpose.pose.types import FLAG_FILLED, Frame, FrameResult, Poses

FPS = 25
SIZE = (360, 640)
STANDING = np.array(
    [
        [0.5, 0.05],
        *[[0.5 + side * 0.03, 0.03] for side in (1, -1)],
        *[[0.5 + side * 0.06, 0.05] for side in (1, -1)],
        *[[0.5 + side * 0.2, 0.2] for side in (1, -1)],
        *[[0.5 + side * 0.3, 0.35] for side in (1, -1)],
        *[[0.5 + side * 0.3, 0.5] for side in (1, -1)],
        *[[0.5 + side * 0.12, 0.55] for side in (1, -1)],
        *[[0.5 + side * 0.12, 0.77] for side in (1, -1)],
        *[[0.5 + side * 0.12, 0.97] for side in (1, -1)],
    ]
)
"""(17, 2) keypoints of a person in shares of the box."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def person_at(x: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    box = np.array([x, 60.0, x + 90, 300.0])
    return STANDING * (90, 240) + box[:2] + noise, box


def walkers(count: int = 50, *, missed: Iterable[int] = ()) -> list[FrameResult]:
    """One from the left, one from the right; the first is not found in the frames ``missed``."""
    rng = np.random.default_rng(0)
    results = []
    for index in range(count):
        people = [person_at(30 + 4 * index, rng.normal(0, 1.5, (17, 2)))] if index not in missed else []
        people.append(person_at(520 - 4 * index, rng.normal(0, 1.5, (17, 2))))
        many = len(people)
        poses = Poses(
            keypoints_xy=np.array([points for points, _ in people], np.float32),
            keypoint_scores=np.full((many, 17), 1.3, np.float32),
            scores=np.full(many, 1.2, np.float32),
            boxes_xyxy=np.array([box for _, box in people], np.float32),
            box_scores=np.full(many, 0.95, np.float32),
        )
        base = Fraction(1, 12800)
        frame = Frame(index, index * 512, base, index / FPS, np.zeros((0, 0, 3), np.uint8))
        results.append(FrameResult(frame, poses))
    return results


HEADER = Header(
    source="walk.mp4",
    size=SIZE,
    fps=Fraction(FPS),
    duration_s=2.0,
    model={"name": "test"},
    settings={"score": 0.5},
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_record(results: list[FrameResult], name: str = "walk.jsonl", header: Header = HEADER) -> Path:
        writer = JsonlWriter if name.endswith("l") else JsonWriter
        with writer(tmp_path / name, header) as record:
            for result in results:
                record.write(result)
        return tmp_path / name

    return write_record


@pytest.fixture
def tracked(write: Callable[..., Path], tmp_path: Path) -> Path:
    assert run("track", write(walkers()), "--out", tmp_path / "tracked.jsonl").exit_code == 0
    return tmp_path / "tracked.jsonl"


FILES = {
    "coco": ["tracked_coco.json"],
    "openpose": ["tracked_openpose"],
    "mmpose": ["tracked_mmpose.json"],
    "alphapose": ["tracked_alphapose.json"],
    "deeplabcut": ["tracked_deeplabcut.csv"],
    "sleap": ["tracked_sleap.csv"],
    "mot": ["tracked_mot.txt"],
    "videopose3d": ["data_2d_custom_tracked.npz"],
    "trc": ["tracked_id1.trc", "tracked_id2.trc"],
    "c3d": ["tracked_id1.c3d", "tracked_id2.c3d"],
    "json": ["tracked.json"],
    "csv": ["tracked.csv"],
}


@pytest.mark.parametrize("name", FILES)
def test_convert_to_every_format(tracked, tmp_path, name):
    before = set(tmp_path.iterdir())
    result = run("convert", tracked, "--to", name)
    assert result.exit_code == 0, result.output
    made = sorted(path.name for path in set(tmp_path.iterdir()) - before)
    assert made == FILES[name]
    assert "50 frames" in result.stderr
    assert all(file in result.stderr for file in FILES[name])
    again = run("convert", tracked, "--to", name)
    assert again.exit_code == 4
    assert "--overwrite" in again.stderr
    assert run("convert", tracked, "--to", name, "--overwrite", "--quiet").stderr == ""


def test_smooth_one_person_tells_that_others_are_left_out(tracked, tmp_path):
    result = run("smooth", tracked, "--person", 1, "--out", tmp_path / "one.jsonl")
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith("one.jsonl (1 other person was left out)\n")
    header, frames = read_record(tmp_path / "one.jsonl")
    assert header.settings["person"] == "id:1"
    assert all(list(frame.poses.track_ids) in ([], [1]) for frame in frames)
    assert "left out" not in run("smooth", tracked).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(
    ("redirection", "told"),
    [("> /dev/full", "cannot write to standard output (No space left"), (">&-", "standard output is closed; open it")],
)
def test_standard_output_that_takes_nothing_is_told(tracked, redirection, told):
    command = f"{sys.executable} -m cpnpose track {tracked} --out - {redirection}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"cpnpose: error: {told}")
    assert done.returncode == 4


def test_convert_to_a_named_file_and_one_person(tracked, tmp_path):
    result = run("convert", tracked, "--to", "trc", "--person", "id:2", "--out", tmp_path / "me.trc")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "me.trc").exists()
    result = run("convert", tracked, "--to", "coco", "--person", "longest", "--out", tmp_path / "coco.json")
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "coco.json").read_text())) == 50
    assert result.stderr == f"cpnpose: 50 frames -> {tmp_path / 'coco.json'} (1 other person was left out)\n"
    result = run("convert", tracked, "--to", "trc", "--out", tmp_path)
    assert result.exit_code == 4
    assert f"cannot write {tmp_path}: it is a folder" in result.stderr
    result = run("convert", tracked, "--to", "trc", "--person", "id:7", "--out", tmp_path / "you.trc")
    assert result.exit_code == 3
    assert "1, 2" in result.stderr


def test_convert_body_25(tracked, tmp_path):
    assert run("convert", tracked, "--to", "openpose", "--layout", "BODY_25", "--out", tmp_path / "op").exit_code == 0
    document = json.loads((tmp_path / "op" / "walk_000000000000_keypoints.json").read_text())
    assert len(document["people"][0]["pose_keypoints_2d"]) == 75


def test_convert_adds_angles(tracked, tmp_path):
    assert run("convert", tracked, "--to", "csv", "--angles", "--out", tmp_path / "a.csv").exit_code == 0
    with open(tmp_path / "a.csv", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert 150 < float(row["left_knee_angle"]) <= 180
    assert run("convert", tracked, "--to", "coco", "--angles").exit_code == 2


def test_convert_to_standard_output_is_the_record(tracked):
    result = run("convert", tracked, "--to", "jsonl", "--out", "-")
    assert result.exit_code == 0
    assert result.stdout == tracked.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["convert", "{}/none.jsonl", "--to", "coco"], 3, "no such file"),
        (["convert", "{}/tracked.jsonl", "--to", "coco", "--out", "{}/no/a.json"], 4, "no folder"),
        (["convert", "{}/tracked.jsonl", "--to", "jsonl", "--out", "{}/tracked.jsonl", "--overwrite"], 4, "is read"),
        (["convert", "{}/tracked.jsonl", "--to", "coco", "--person", "tall"], 2, "longest"),
        (["convert", "{}/tracked.jsonl", "--to", "csv", "--out", "-"], 2, "JSON Lines"),
        (["track", "{}/tracked.jsonl", "--out", "{}/a.xml"], 2, ".jsonl"),
        (["convert", "{}/tracked.jsonl", "--to", "csv", "--out", "{}/a.json"], 2, "change one"),
        (["render", "{}/tracked.jsonl", "walk.mp4", "--out", "{}"], 4, "is a folder"),
        (["smooth", "{}/walk.jsonl"], 2, "cpnpose track"),
        (["convert", "{}/walk.jsonl", "--to", "deeplabcut"], 2, "cpnpose track"),
    ],
)
def test_mistakes_are_told_in_a_line_and_leave_no_file(tracked, tmp_path, arguments, code, said):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*(argument.format(tmp_path) for argument in arguments))
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["walk.jsonl", "walk.json"])
def test_track_gives_each_walker_one_id(write, tmp_path, name):
    record = write(walkers(missed={10, 11}), name)
    result = run("track", record)
    assert result.exit_code == 0, result.output
    target = tmp_path / f"walk_tracked{record.suffix}"
    header, frames = read_record(target)
    assert header.settings["score"] == 0.5
    assert header.settings["track"] is True
    assert "track_ids" in header.extras
    results = list(frames)
    assert len(results) == 50
    first = [ids[0] for ids in (result.poses.track_ids for result in results) if len(ids) == 2]
    second = [result.poses.track_ids[-1] for result in results]
    assert set(first) == {1}
    assert set(second) == {2}


def test_smooth_calms_and_keeps_the_raw_values(tracked, tmp_path):
    result = run("smooth", tracked)
    assert result.exit_code == 0, result.output
    header, frames = read_record(tmp_path / "tracked_smoothed.jsonl")
    assert header.settings["smooth"] == "one-euro"
    smooth, raw = [], []
    for read, original in zip(frames, read_record(tracked)[1], strict=True):
        np.testing.assert_array_equal(read.poses.raw_keypoints_xy, original.poses.keypoints_xy)
        np.testing.assert_array_equal(read.poses.track_ids, original.poses.track_ids)
        smooth.append(read.poses.keypoints_xy[0])
        raw.append(original.poses.keypoints_xy[0])
    assert np.diff(smooth, 2, axis=0).std() < 0.5 * np.diff(raw, 2, axis=0).std()


def test_smoothing_and_tracking_again_start_from_the_raw_values(tracked, tmp_path):
    """Neither is done on top of itself."""
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    assert run("smooth", tracked, "--out", once).exit_code == 0
    assert run("smooth", once, "--out", twice).exit_code == 0
    assert once.read_text() == twice.read_text()
    assert run("track", once, "--out", tmp_path / "again.jsonl").exit_code == 0
    for read, expected in zip(read_record(tmp_path / "again.jsonl")[1], read_record(once)[1], strict=True):
        np.testing.assert_array_equal(read.poses.track_ids, expected.poses.track_ids)
        np.testing.assert_allclose(read.poses.keypoints_xy, expected.poses.keypoints_xy, atol=0.011)


def test_tracking_again_forgets_how_the_record_was_smoothed(tracked, tmp_path):
    """What was filled, exchanged or filtered otherwise is not in the result, so its settings do not say so."""
    smoothed, again = tmp_path / "smoothed.jsonl", tmp_path / "again.jsonl"
    assert run("smooth", tracked, "--fill", 0.5, "--min-cutoff", 2, "--out", smoothed).exit_code == 0
    assert run("track", smoothed, "--out", again).exit_code == 0
    settings = read_record(again)[0].settings
    assert (settings["smooth"], settings["fill_s"], settings["repair_swaps"]) == ("one-euro", 0.0, False)
    assert "smooth_min_cutoff_hz" not in settings


def test_tracking_does_not_filter_what_was_repaired_alone(tracked, tmp_path):
    repaired, again = tmp_path / "repaired.jsonl", tmp_path / "again.jsonl"
    assert run("smooth", tracked, "--no-one-euro", "--out", repaired).exit_code == 0
    assert run("track", repaired, "--out", again).exit_code == 0
    header, frames = read_record(again)
    assert header.settings["smooth"] == "off"
    for read, expected in zip(frames, read_record(tracked)[1], strict=True):
        np.testing.assert_array_equal(read.poses.keypoints_xy, expected.poses.keypoints_xy)


def test_smooth_fills_gaps_and_flags_them(write, tmp_path):
    gaps = {20, 21}
    assert run("track", write(walkers(missed=gaps)), "--out", tmp_path / "gaps.jsonl").exit_code == 0
    result = run("smooth", tmp_path / "gaps.jsonl", "--fill", 0.3, "--out", tmp_path / "filled.jsonl")
    assert result.exit_code == 0, result.output
    for read in read_record(tmp_path / "filled.jsonl")[1]:
        assert sorted(read.poses.track_ids) == [1, 2]
        filled = np.zeros(2, bool) if read.poses.flags is None else (read.poses.flags & FLAG_FILLED).all(axis=1)
        assert filled.tolist() == ([False, True] if read.frame.index in gaps else [False, False])
    again = tmp_path / "again.jsonl"
    assert run("smooth", tmp_path / "filled.jsonl", "--out", again).exit_code == 0
    assert [len(read.poses) for read in read_record(again)[1]] == [1 if at in gaps else 2 for at in range(50)]


def test_records_of_images_have_no_time(write):
    record = write(walkers(3), header=replace(HEADER, kind="images"))
    for command in ("track", "smooth"):
        result = run(command, record)
        assert result.exit_code == 2
        assert "images" in result.stderr
    result = run("convert", record, "--to", "csv", "--person", "largest")
    assert result.exit_code == 2
    assert "leave it out" in result.stderr


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """50 grey frames, the ones that the walkers' record is of."""
    path = tmp_path / "walk.mp4"
    with VideoWriter(path, size=SIZE, time_base=Fraction(1, 12800), fps=Fraction(FPS)) as writer:
        for result in walkers():
            writer.write(result.frame, np.full((*SIZE, 3), 90, np.uint8))
    return path


def test_render_draws_the_record_into_its_video(tracked, video, tmp_path):
    result = run("render", tracked, video, "--out", tmp_path / "drawn.mp4")
    assert result.exit_code == 0, result.output
    assert "50 frames in = 50 frames out" in result.stderr
    with VideoReader(video) as before, VideoReader(tmp_path / "drawn.mp4") as after:
        for old, new, recorded in zip(before, after, read_record(tracked)[1], strict=True):
            assert (old.index, old.time_s) == (new.index, new.time_s)
            changed = np.abs(new.image.astype(int) - 90).max(axis=2) > 40
            points = np.floor(recorded.poses.keypoints_xy[:, [9, 10, 15, 16]]).astype(int).reshape(-1, 2)
            assert changed[points[:, 1], points[:, 0]].all()
            assert not changed[:50].any()


def test_render_one_person_of_a_part_on_black(tracked, video, tmp_path):
    """A record of every second frame from 0.4 s on, as `video --start 0.4 --every 2` makes it."""
    header, frames = read_record(tracked)
    part = tmp_path / "part.jsonl"
    with JsonlWriter(part, replace(header, settings={"start": 0.4, "every": 2})) as writer:
        for result in list(frames)[10::2]:
            writer.write(result)
    arguments = ["render", part, video, "--person", "id:2", "--background", "black", "--out", tmp_path / "drawn.mp4"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    with VideoReader(tmp_path / "drawn.mp4") as after:
        images = [frame.image for frame in after]
    assert len(images) == 20
    first = np.flatnonzero((images[0] > 60).any(axis=(0, 2)))
    assert first.min() > 440  # the other person stands at 70 to 160


@pytest.mark.parametrize(
    ("change", "said"),
    [({"size": (640, 360)}, "360x640"), ({"times": 0.01}, "at 0.010 s"), ({"index": 60}, "no frame 60")],
)
def test_render_refuses_another_video(tracked, video, tmp_path, change, said):
    header, frames = read_record(tracked)
    other = tmp_path / "other.jsonl"
    with JsonlWriter(other, replace(header, size=change.get("size", SIZE))) as writer:
        for result in frames:
            frame = replace(result.frame, time_s=result.frame.time_s + change.get("times", 0))
            writer.write(replace(result, frame=replace(frame, index=frame.index + change.get("index", 0))))
    before = set(tmp_path.iterdir())
    result = run("render", other, video, "--out", tmp_path / "drawn.mp4")
    assert result.exit_code == 3
    assert said in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_render_never_overwrites_by_itself(tracked, video, tmp_path):
    for target in (video, tracked):
        assert run("render", tracked, video, "--out", target, "--overwrite").exit_code == 4
    assert run("render", tracked, video).exit_code == 0
    assert (tmp_path / "walk_pose.mp4").exists()
    assert run("render", tracked, video).exit_code == 4


@pytest.mark.parametrize("arguments", [("convert", "--to", "coco"), ("convert", "--to", "mot"), ("report",)])
def test_no_format_replaces_the_record_that_is_read(tracked, arguments):
    before = tracked.read_bytes()
    command, *options = arguments
    done = run(command, tracked, *options, "--out", tracked, "--overwrite")
    assert done.exit_code != 0
    assert "is the record that is read" in done.stderr
    assert tracked.read_bytes() == before


@pytest.mark.parametrize("command", [("convert", "--to", "jsonl"), ("smooth",), ("track",)])
def test_an_unfinished_record_is_not_lost_by_writing_it_under_its_final_name(tracked, command):
    """JSON Lines stand under the partial name while they are written, which here is the record's own."""
    partial = tracked.rename(tracked.with_name("run.partial.jsonl"))
    before = partial.read_bytes()
    done = run(command[0], partial, *command[1:], "--out", partial.with_name("run.jsonl"), "--overwrite")
    assert done.exit_code == 4
    assert "is the record that is read" in done.stderr
    assert partial.read_bytes() == before
    assert not partial.with_name("run.jsonl").exists()


def test_a_record_may_end_in_ndjson(tracked, tmp_path):
    record = tracked.rename(tracked.with_suffix(".ndjson"))
    assert run("smooth", record).exit_code == 0
    assert read_record(tmp_path / "tracked_smoothed.ndjson")[0].settings["smooth"] == "one-euro"


def test_json_lines_on_standard_output_are_utf8_in_every_locale(write):
    record = write(walkers(1), header=replace(HEADER, source="Tänzer 日本.mp4"))
    done = subprocess.run(
        [sys.executable, "-m", "cpnpose", "convert", str(record), "--to", "jsonl", "--out", "-"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == record.read_bytes()


def test_standard_output_is_for_json_lines(tracked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("convert", tracked, "--to", "coco", "--out", "-")
    assert done.exit_code != 0
    assert "--to jsonl" in done.stderr
    assert run("report", tracked, "--out", "-").exit_code != 0
    assert not (tmp_path / "-").exists()


def test_render_names_no_video_of_a_record_without_frames(write, video, tmp_path):
    result = run("render", write([]), video, "--out", tmp_path / "drawn.mp4")
    assert result.exit_code == 0, result.output
    assert "drawn.mp4" not in result.stderr
    assert not (tmp_path / "drawn.mp4").exists()


def test_the_faces_of_people_who_were_not_chosen_are_blurred_too(tracked, video, tmp_path):
    """Noise around both heads, whose pixels the blurring evens out; nothing else is drawn there."""
    source = tmp_path / "noise.mp4"
    random = np.random.default_rng(2)
    noise = random.integers(0, 255, (*SIZE, 3), np.uint8)
    with (
        VideoReader(video) as reader,
        VideoWriter(source, size=SIZE, time_base=reader.time_base, fps=Fraction(FPS), crf=10) as writer,
    ):
        for frame in reader:
            writer.write(frame, noise)
    spread = []
    for extra in ((), ("--blur-faces",)):
        out = tmp_path / f"out{len(extra)}.mp4"
        done = run(
            "render", tracked, source, "--out", out, "--person", "1", "--draw-threshold", "9", "--crf", "10", *extra
        )
        assert done.exit_code == 0, done.stderr
        with VideoReader(out) as reader:
            image = [frame.image.mean(axis=2) for frame in reader][5]
        _, frames = read_record(tracked)
        heads = [result.poses.keypoints_xy[:, 0] for result in frames][5]
        spread.append([image[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].std() for x, y in heads])
    assert len(spread[0]) == 2
    assert (np.array(spread[1]) < 0.5 * np.array(spread[0])).all()


def test_faces_that_the_record_has_lost_are_told(tracked, video, tmp_path):
    alone = tmp_path / "alone.jsonl"
    assert run("smooth", tracked, "--person", "1", "--out", alone).exit_code == 0
    for record, told in ((alone, True), (tracked, False)):
        done = run("render", record, video, "--out", tmp_path / "o.mp4", "--blur-faces", "--overwrite")
        assert done.exit_code == 0, done.stderr
        assert ("the faces of others are not blurred" in done.stderr) == told


def test_the_sound_ends_with_a_record_that_ends_before_the_video(tracked, tmp_path, make_video):
    """Half of the 50 frames; the sound is as long as all of them."""
    source = make_video(
        tmp_path / "sound.mp4",
        images=[np.full((*SIZE, 3), 90, np.uint8)] * 50,
        times=[index / FPS for index in range(50)],
        time_base=Fraction(1, 12800),
        audio=("aac",),
        audio_s=2.0,
    )
    header, frames = read_record(tracked)
    half = tmp_path / "half.jsonl"
    with JsonlWriter(half, header) as writer:
        for result in list(frames)[:25]:
            writer.write(result)
    done = run("render", half, source, "--out", tmp_path / "drawn.mp4")
    assert done.exit_code == 0, done.stderr
    assert "the record ends before the video" in done.stderr
    with av.open(str(tmp_path / "drawn.mp4")) as container:
        sound = container.streams.audio[0]
        assert 0.8 < float(sound.duration * sound.time_base) < 1.2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("convert", "RECORD", "--to", "mot", "--layout", "BODY_25"), "--layout has no effect: mot"),
        (("smooth", "TRACKED", "--no-one-euro", "--beta", "1"), "--beta has no effect: "),
        (("render", "RECORD", "VIDEO", "--draw-ids"), "run `cpnpose track` on it first"),
    ],
)
def test_options_without_effect_are_refused(write, tracked, video, arguments, said):
    paths = {"RECORD": write(walkers(), "plain.jsonl"), "TRACKED": tracked, "VIDEO": video}
    done = run(*(paths.get(argument, argument) for argument in arguments))
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(("at", "said"), [(9, "drawn.mp4"), (0, "nothing was written")])
def test_ctrl_c_in_render_says_what_is_there(tracked, video, tmp_path, monkeypatch, at, said):
    import cpnpose.media.draw

    draw, drawn = cpnpose.media.draw.draw_poses, []

    def interrupted(image, poses, style, **options):
        if len(drawn) == at:
            os.kill(os.getpid(), signal.SIGINT)
        drawn.append(poses)
        return draw(image, poses, style, **options)

    if at:
        monkeypatch.setattr(cpnpose.media.draw, "draw_poses", interrupted)
    else:  # before the first frame
        monkeypatch.setattr("cpnpose.cli.record_render.with_frames", lambda *_: signal.raise_signal(signal.SIGINT))
    done = run("render", tracked, video, "--out", tmp_path / "drawn.mp4")
    assert done.exit_code == 130
    last = next(line for line in done.stderr.splitlines() if "frames in" in line)
    assert "interrupted" in last
    assert said in last
    assert (tmp_path / "drawn.mp4").exists() == bool(at)
    if at:
        with VideoReader(tmp_path / "drawn.mp4") as reader:
            assert len(list(reader)) == 10 == len(drawn)  # the frame at hand is whole
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]
