from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

Run = Callable[..., Any]


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(container.streams.video[0])]
    return [round(t - times[0], 5) for t in times]


def test_video_and_data_share_stem_and_folder(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    done = cpnpose("video", clip, "--out", tmp_path / "out.mp4", "--json", "--jsonl", "--csv")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.json", "out.jsonl", "out.mp4"]
    assert times_of(tmp_path / "out.mp4") == times_of(clip)
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["complete"] is True
    assert [frame["index"] for frame in document["frames"]] == list(range(12))
    assert [round(f["time"] - document["frames"][0]["time"], 5) for f in document["frames"]] == times_of(clip)
    person = document["frames"][5]["people"][0]
    assert person["box"] == [0, 0, 64, 48]
    assert np.array(person["keypoints"]).shape == (17, 3)
    assert person["track_id"] == 1
    assert "raw_keypoints" in person
    assert document["model"]["weights"] == "tiny"
    assert document["settings"]["smooth"] == "one-euro"
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines[1:]] == document["frames"]
    with (tmp_path / "out.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    assert "12 frames in = 12 frames out, 1 person" in done.stderr
    assert done.stdout == ""


def test_names_without_out(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(clip, tmp_path / "in.mp4"))
    assert cpnpose("video", source).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "in_pose.mp4"}
    assert cpnpose("video", source, "--json").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "in_pose.mp4", "in_pose.json"}


def test_several_inputs_into_a_folder(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    first, second = (Path(shutil.copy(clip, tmp_path / name)) for name in ("a.mp4", "b.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    done = cpnpose("video", first, text, second, "--out", tmp_path / "new" / "results", "--csv")
    assert done.exit_code == 3
    names = {path.name for path in (tmp_path / "new" / "results").iterdir()}
    assert names == {"a_pose.mp4", "a_pose.csv", "b_pose.mp4", "b_pose.csv"}
    assert "text.mp4" in done.stderr
    assert "1 of 3 videos could not be read" in done.stderr


def test_json_lines_to_standard_output(cpnpose: Run, clip: Path) -> None:
    done = cpnpose("video", clip, "--out", "-", "--every", 3)
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in lines[1:]] == [0, 3, 6, 9]


def test_data_only_by_the_name_of_out(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    assert cpnpose("video", clip, "--out", tmp_path / "x.csv").exit_code == 0
    assert cpnpose("video", clip, "--out", tmp_path / "y.mp4", "--json", "--no-video").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "y.json"}


def test_nothing_is_replaced_unasked(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    done = cpnpose("video", clip, "--out", out)
    assert done.exit_code == 4
    assert "--overwrite" in done.stderr
    assert out.read_bytes() == b"precious"
    assert cpnpose("video", clip, "--out", out, "--overwrite").exit_code == 0
    assert len(times_of(out)) == 12
    source = Path(shutil.copy(clip, tmp_path / "in.mp4"))
    assert cpnpose("video", source, "--out", source, "--overwrite").exit_code == 4
    assert source.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--start", "3", "--end", "2"], 2, "--end"),
        (["--resume"], 2, "--jsonl"),
        (["--person", "tallest"], 2, "tallest"),
        (["--person", "longest", "--no-track"], 2, "--no-track"),
        (["--smooth", "one-euro", "--no-track"], 2, "--no-track"),
        (["--precision", "int3"], 2, "int3"),
        (["--out", "nowhere/out.mp4"], 4, "no folder"),
        (["--out", "out.doc"], 4, "out.doc"),
        (["--no-video"], 2, "--json"),
        (["--codec", "cinepak9"], 2, "cinepak9"),
        (["--hwaccel", "hal9000"], 2, "Use one of: "),
        (["--out", "o.gif", "--codec", "hevc"], 2, "--codec has no effect on a GIF"),
        (["--out", "o.gif", "--crf", "9"], 2, "--crf has no effect on a GIF"),
        (["--angles"], 2, "add --json, --jsonl or --csv"),
        (["--draw-ids", "--no-track"], 2, "leave --no-track out"),
        (["--track-memory", "9", "--no-track"], 2, "leave --no-track out"),
        (["--out", "o.json", "--draw-boxes", "--crf", "9"], 2, "--crf and --draw-boxes have no effect: no video"),
        (["--out", "o.mp4", "--no-video", "--json", "--draw-ids"], 2, "leave --no-video out"),
        (["--out", "new/", "--person", "tallest"], 2, "tallest"),
        (["--score", "0.5"], 2, "--score has no effect with --detector none"),
        (["--max-people", "100"], 2, "--max-people has no effect with --detector none"),
    ],
)
def test_mistakes_are_told_in_one_line(
    cpnpose: Run, clip: Path, tmp_path: Path, options: list[str], code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cpnpose(
        "video", clip, *options, *([] if "--out" in options or "--no-video" in options else ["--out", "o.mp4"])
    )
    assert done.exit_code == code
    assert done.stderr.startswith("cpnpose: error: ")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--codec", "cinepak9"], ["--hwaccel", "hal9000"], ["--out", "o.doc"]])
def test_formats_are_checked_before_the_networks_are_loaded(
    cpnpose: Run, clip: Path, tmp_path: Path, options: list[str]
) -> None:
    out = [] if "--out" in options else ["--out", tmp_path / "o.mp4"]
    done = cpnpose("video", clip, *options, *out, "--weights", "missing.safetensors", networks=False)
    assert done.exit_code in (2, 4)
    assert options[1] in done.stderr


def test_all_inputs_are_looked_at_before_the_first_is_worked_on(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    out = tmp_path / "results"
    done = cpnpose("video", clip, tmp_path / "tpyo.mp4", "--out", out)
    assert done.exit_code == 3
    assert done.stderr == f"cpnpose: error: {tmp_path / 'tpyo.mp4'}: no such file. Check the path.\n"
    done = cpnpose("video", clip, tmp_path / "tpyo.mp4", tmp_path / "empty.mp4", "--out", out)
    assert done.exit_code == 3
    assert "tpyo.mp4: no such file" in done.stderr
    assert "empty.mp4: is empty" in done.stderr
    assert "2 of 3 inputs cannot be read; nothing was done" in done.stderr
    assert not out.exists()


def test_boxes_are_of_one_video(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    other = shutil.copy(clip, tmp_path / "other.mp4")
    done = cpnpose("video", clip, other, "--out", tmp_path / "new", "--boxes", "b.json", networks=False)
    assert done.exit_code == 2
    assert "--boxes names frames of one video" in done.stderr


def test_records_on_standard_output_are_utf8_whatever_a_pipe_takes(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    source = Path(shutil.copy(clip, tmp_path / "日本é.mp4"))
    networks = ("--weights", tiny_weights, "--detector", "none", "--device", "cpu")

    def output(*arguments: object) -> bytes:
        command = [sys.executable, "-m", "cpnpose", *map(str, arguments)]
        environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    text = output("video", source, "--out", "-", *networks)
    assert json.loads(text.splitlines()[0])["source"]["file"] == source.name
    record = tmp_path / "record.jsonl"
    record.write_bytes(text)
    assert output("convert", record, "--to", "jsonl", "--out", "-") == text


def test_errors_in_a_batch_name_the_input(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    first, second = (Path(shutil.copy(clip, tmp_path / name)) for name in ("a.mp4", "b.mp4"))
    done = cpnpose("video", first, second, "--out", tmp_path / "results", "--json", "--person", "id:9")
    assert done.exit_code == 3
    told = done.stderr.splitlines()
    assert sum("its ids are" in line for line in told) == 2
    assert all(any(str(name) in line and "its ids are" in line for line in told) for name in (first, second))


def test_a_text_file_is_refused_before_the_networks_are_loaded(cpnpose: Run, tmp_path: Path) -> None:
    text = tmp_path / "in.mp4"
    text.write_text("this is no video")
    done = cpnpose("video", text, "--json", "--weights", "missing.safetensors", networks=False)
    assert done.exit_code == 3
    assert "in.mp4" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_start_end_and_no_track(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "o.json", "--start", "0.1", "--end", "0.4", "--no-track")
    assert cpnpose("video", clip, *options).exit_code == 0
    document = json.loads((tmp_path / "o.json").read_text())
    assert all(0.1 <= frame["time"] < 0.4 for frame in document["frames"])
    assert document["frames"]
    assert document["frames"][0]["people"][0]["track_id"] is None
    assert "raw_keypoints" not in document["frames"][0]["people"][0]


@pytest.mark.parametrize(("count", "told"), [(1, "1 damaged frame or packet"), (2, "2 damaged frames or packets")])
def test_damaged_frames_are_counted_in_words_that_fit(
    cpnpose: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, told: str
) -> None:
    from cpnpose.cli import video_task

    class Damaged(video_task.VideoReader):
        damaged = count  # type: ignore[assignment]

    monkeypatch.setattr(video_task, "VideoReader", Damaged)
    done = cpnpose("video", clip, "--out", tmp_path / "o.json")
    assert done.exit_code == 0, done.stderr
    assert f"cpnpose: {clip}: {told} could not be decoded, or only in part" in done.stderr.splitlines()


def test_flip_tells_uncertainty_and_angles_are_added(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    assert cpnpose("video", clip, "--out", tmp_path / "o.json", "--flip", "--angles").exit_code == 0
    person = json.loads((tmp_path / "o.json").read_text())["frames"][0]["people"][0]
    assert len(person["uncertainty_px"]) == 17
    assert "left_knee" in person["angles"]


def test_boxes_of_a_file(cpnpose: Run, clip: Path, tmp_path: Path, tiny_weights: Path) -> None:
    boxes = [
        {"image_id": 2, "category_id": 1, "bbox": [5, 6, 20, 30], "score": 0.75},
        {"image_id": 2, "category_id": 1, "bbox": [30, 6, 20, 30], "score": 0.9},
        {"image_id": 2, "category_id": 18, "bbox": [0, 0, 9, 9], "score": 1.0},
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", tmp_path / "boxes.json", "--weights", tiny_weights, "--device", "cpu")
    done = cpnpose("video", clip, "--out", tmp_path / "o.json", *options, networks=False)
    assert done.exit_code == 0, done.stderr
    frames = json.loads((tmp_path / "o.json").read_text())["frames"]
    assert [len(frame["people"]) for frame in frames] == [0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert [person["box"] for person in frames[2]["people"]] == [[30, 6, 50, 36], [5, 6, 25, 36]]
    assert frames[2]["people"][0]["box_score"] == 0.9
    for command, source in (("video", clip), ("images", tmp_path / "i.png")):
        (tmp_path / "i.png").write_bytes(b"")
        done = cpnpose(command, source, "--out", tmp_path / "boxes.json", "--overwrite", *options, networks=False)
        assert done.exit_code == 4
        assert "boxes.json is the input, which is never overwritten" in done.stderr
    assert json.loads((tmp_path / "boxes.json").read_text()) == boxes


def test_one_person_of_the_whole_clip(cpnpose: Run, clip: Path, tmp_path: Path, tiny_weights: Path) -> None:
    boxes = [{"image_id": i, "category_id": 1, "bbox": [2, 2, 25, 40], "score": 0.99} for i in range(12) if i != 4]
    boxes += [{"image_id": i, "category_id": 1, "bbox": [40, 5, 12, 20], "score": 0.98} for i in range(5)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", tmp_path / "boxes.json", "--weights", tiny_weights, "--device", "cpu", "--fill", "0.5")
    out = tmp_path / "o.mp4"
    done = cpnpose("video", clip, "--out", out, "--json", "--person", "largest", *options, networks=False)
    assert done.exit_code == 0, done.stderr
    frames = json.loads((tmp_path / "o.json").read_text())["frames"]
    assert [len(frame["people"]) for frame in frames] == [1] * 12
    assert len({frame["people"][0]["track_id"] for frame in frames}) == 1
    assert frames[4]["people"][0]["flags"]["filled"] == list(range(17))
    assert len(times_of(out)) == 12
    done = cpnpose("video", clip, "--json", "--out", tmp_path / "p.json", "--person", "id:9", *options, networks=False)
    assert done.exit_code == 3
    assert "its ids are" in done.stderr
    assert not (tmp_path / "p.json").exists()


def test_heads_of_others_are_blurred_in_filled_gaps_too(
    cpnpose: Run, clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpnpose.cli import whole_clip

    boxes = [{"image_id": i, "category_id": 1, "bbox": [2, 2, 25, 40], "score": 0.99} for i in range(12)]
    boxes += [{"image_id": i, "category_id": 1, "bbox": [40, 5, 12, 20], "score": 0.98} for i in range(9) if i != 4]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", tmp_path / "boxes.json", "--weights", tiny_weights, "--device", "cpu", "--blur-faces")
    for added, blurred in ((), [1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]), (("--fill", "0.5"), [1] * 9 + [0] * 3):
        others: list[int] = []
        monkeypatch.setattr(whole_clip, "blur_heads", lambda image, poses, seen=others: seen.append(len(poses)))
        out = tmp_path / f"{len(added)}.mp4"
        done = cpnpose("video", clip, "--out", out, "--person", "largest", *added, *options, networks=False)
        assert done.exit_code == 0, done.stderr
        assert others == blurred


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_quiet_encoders(tmp_path: Path, clip: Path, tiny_weights: Path, codec: str) -> None:
    networks = ("--weights", tiny_weights, "--detector", "none", "--device", "cpu")
    process = start("video", clip, "--out", tmp_path / "o.mp4", "--codec", codec, "--quiet", *networks)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


def test_progress_for_machines_and_quiet(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    done = cpnpose("video", clip, "--out", tmp_path / "a.json", "--progress", "json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert events[-1]["event"] == "end"
    assert (events[-1]["frames_in"], events[-1]["frames_out"]) == (12, 12)
    assert events[-1]["results"] == [str(tmp_path / "a.json")]
    assert cpnpose("video", clip, "--out", tmp_path / "b.json", "--quiet").stderr == ""


def test_resume_after_a_crash_equals_an_uninterrupted_run(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    for every in (1, 4):
        folder = tmp_path / str(every)
        folder.mkdir()
        options = ("--jsonl", "--json", "--detect-every", every)
        assert cpnpose("video", clip, "--out", folder / "whole.mp4", *options).exit_code == 0
        lines = (folder / "whole.jsonl").read_text().splitlines(keepends=True)
        for kept in (1, 3, 7, 12):
            broken = folder / "broken.partial.jsonl"
            broken.write_text("".join(lines[: kept + 1]) + lines[5][: len(lines[5]) // 2])
            resumed = cpnpose("video", clip, "--out", folder / "broken.mp4", *options, "--resume")
            assert resumed.exit_code == 0, resumed.stderr
            assert (folder / "broken.jsonl").read_text() == (folder / "whole.jsonl").read_text()
            assert (folder / "broken.json").read_text() == (folder / "whole.json").read_text()
            assert times_of(folder / "broken.mp4") == times_of(clip)
            for name in ("broken.jsonl", "broken.json", "broken.mp4"):
                (folder / name).unlink()


def save_detector(path: Path, seed: int) -> None:
    """A tiny person detector with random entries."""
    import torch

    from cpnpose.models.detector import ARCHITECTURE, DetectorConfig, build_detector
    from cpnpose.models.weights import WeightsMetadata, save_weights

    torch.manual_seed(seed)
    config = DetectorConfig(channels=16, hidden=32, proposals=20, input_pixels=96 * 128)
    metadata = WeightsMetadata(ARCHITECTURE, (96, 128), kind="detector", config=dataclasses.asdict(config))
    save_weights(path, build_detector(config).state_dict(), metadata)


@pytest.mark.parametrize("option", ["--detector-weights", "--boxes"])
def test_a_run_is_not_resumed_with_another_file_of_the_same_name(
    cpnpose: Run, clip: Path, tmp_path: Path, tiny_weights: Path, option: str
) -> None:
    def write(number: int) -> None:
        if option == "--boxes":
            file.write_text(json.dumps([{"image_id": 2, "category_id": 1, "bbox": [5, 6, 20, 30 + number]}]))
        else:
            save_detector(file, number)

    file, record, partial = (tmp_path / name for name in ("people.file", "o.jsonl", "o.partial.jsonl"))
    command = ("video", clip, "--out", record, option, file, "--weights", tiny_weights, "--device", "cpu")
    write(0)
    content = file.read_bytes()
    assert cpnpose(*command, networks=False).exit_code == 0
    lines = record.read_text().splitlines(keepends=True)
    described = json.loads(lines[0])["model"]["detector"]
    assert described["sha256"] == hashlib.sha256(content).hexdigest()
    record.unlink()
    partial.write_text("".join(lines[:5]))
    write(1)
    refused = cpnpose(*command, "--resume", networks=False)
    assert refused.exit_code == 4
    assert f'it was made otherwise (model.detector.sha256: "{described["sha256"]}" -> ' in refused.stderr
    file.write_bytes(content)
    assert cpnpose(*command, "--resume", networks=False).exit_code == 0
    assert record.read_text() == "".join(lines)


def test_a_full_disk_or_unwritable_folder_leaves_no_half_file(cpnpose: Run, clip: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    done = cpnpose("video", clip, "--out", folder / "o.mp4", "--json")
    assert done.exit_code == 4
    assert list(folder.iterdir()) == []


def start(*arguments: object, to: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cpnpose", *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=to, text=True)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory, make_frames: Callable[..., list[Any]]) -> Path:
    from fractions import Fraction

    from cpnpose.media.video import VideoWriter

    path = tmp_path_factory.mktemp("long") / "long.mp4"
    with VideoWriter(path, size=(48, 64), time_base=Fraction(1, 12800), fps=Fraction(25)) as writer:
        for index in range(1500):
            frame = make_frames(1, first=index)[0]
            writer.write(frame, frame.image)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_whole_files(long_clip: Path, tmp_path: Path, tiny_weights: Path) -> None:
    networks = ("--weights", tiny_weights, "--detector", "none", "--device", "cpu")
    data = ("--json", "--jsonl", "--csv")
    process = start("video", long_clip, "--out", tmp_path / "o.mp4", *data, *networks)
    deadline = time.monotonic() + 60
    record = tmp_path / "o.partial.jsonl"
    while time.monotonic() < deadline and not (record.exists() and record.read_bytes().count(b"\n") > 20):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
    document = json.loads((tmp_path / "o.json").read_text())
    count = len(document["frames"])
    assert 20 <= count < 1500
    assert document["complete"] is False
    assert len(times_of(tmp_path / "o.mp4")) == count
    assert record.read_text().count("\n") == count + 1
    assert len((tmp_path / "o.csv").read_text().splitlines()) == count + 1
    assert len(list(tmp_path.iterdir())) == 4
    # kill -9 in the middle of going on, then going on once more
    process = start("video", long_clip, "--out", tmp_path / "o.mp4", *data, *networks, "--resume")
    while time.monotonic() < deadline and record.read_bytes().count(b"\n") < count + 50:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=30)
    written = record.read_bytes().count(b"\n")
    assert count + 50 <= written < 1500


@pytest.mark.skipif(sys.platform == "win32", reason="signals and named pipes of POSIX")
def test_ctrl_c_while_a_pipe_is_silent(long_clip: Path, tmp_path: Path, tiny_weights: Path) -> None:
    stream, pipe, record = tmp_path / "long.ts", tmp_path / "pipe", tmp_path / "o.partial.jsonl"
    with av.open(str(long_clip)) as source, av.open(str(stream), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
    os.mkfifo(pipe)
    networks = ("--weights", tiny_weights, "--detector", "none", "--device", "cpu")
    process = start("video", pipe, "--out", tmp_path / "o.mp4", "--jsonl", *networks)
    with pipe.open("wb", buffering=0) as sender:
        sender.write(stream.read_bytes())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (record.exists() and record.read_bytes().count(b"\n") > 1400):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, stderr
    assert record.read_text().count("\n") == len(times_of(tmp_path / "o.mp4")) + 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
)
def test_ctrl_c_while_files_are_closed_waits_for_them(
    cpnpose: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from cpnpose.media.video import VideoWriter

    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("whoever started the tests by nohup wants them to go on")
    close = VideoWriter.close

    def interrupted(self: VideoWriter, **options: Any) -> None:
        os.kill(os.getpid(), number)
        close(self, **options)

    monkeypatch.setattr(VideoWriter, "close", interrupted)
    second = tmp_path / "second.mp4"
    second.write_bytes(clip.read_bytes())
    results = tmp_path / "results"
    done = cpnpose("video", clip, second, "--out", results, "--json")
    assert done.exit_code == 130
    assert "12 frames in = 12 frames out" in done.stderr
    assert {path.name for path in results.iterdir()} == {"in_pose.mp4", "in_pose.json"}  # and no second video
    assert len(times_of(results / "in_pose.mp4")) == 12
    assert json.loads((results / "in_pose.json").read_text())["complete"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
@pytest.mark.parametrize("progress", ["bar", "json"])
def test_a_terminal_that_is_closed_leaves_whole_files(
    long_clip: Path, tmp_path: Path, tiny_weights: Path, progress: str
) -> None:
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("whoever started the tests by nohup wants them to go on")
    options = ("--progress", progress, "--weights", tiny_weights, "--detector", "none", "--device", "cpu")
    record = tmp_path / "o.partial.jsonl"
    terminal, end = os.openpty()
    process = start("video", long_clip, "--out", tmp_path / "o.mp4", "--jsonl", *options, to=end)
    os.close(end)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (record.exists() and record.read_bytes().count(b"\n") > 20):
        time.sleep(0.02)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(times_of(tmp_path / "o.mp4")) == record.read_text().count("\n") - 1
    assert len(list(tmp_path.iterdir())) == 2


def test_python_interface_in_five_lines(clip: Path, tiny_weights: Path) -> None:
    from cpnpose import PoseEstimator

    estimator = PoseEstimator(tiny_weights, detector="none", device="cpu")
    results = list(estimator.video(clip))
    assert len(results) == 12
    np.testing.assert_array_equal(results[3].poses.track_ids, [1])
    poses = estimator(results[0].frame.image)
    assert poses.keypoints_xy.shape == (1, 17, 2)
