from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from cpnpose.cli.evaluate import _pck_rows
from cpnpose.cli.main import app
from cpnpose.cli.tables import print_table
from cpnpose.models.weights import read_metadata
from cpnpose.pose.keypoints import KEYPOINT_NAMES


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """An image folder, and an annotation file of eight people."""
    generator = np.random.default_rng(0)
    images, people = [], []
    for number in range(1, 9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), generator.integers(0, 256, (80, 60, 3), np.uint8))
        images.append({"id": number, "file_name": f"{number}.png"})
        points = np.concatenate([generator.uniform(5, 55, (17, 2)), np.full((17, 1), 2)], axis=1)
        people.append({"id": number, "image_id": number, "bbox": [5, 5, 50, 70], "area": 1750.0,
                       "keypoints": points.flatten().tolist()})  # fmt: skip
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": people}))
    return tmp_path, path


def test_training_evaluation_and_labelling_from_the_command_line(data: tuple[Path, Path], tmp_path: Path) -> None:
    images, people = data
    common = ("train", "pose", "--data", images, "--annotations", people, "--model", "cpn-light", "--size", "64x64",
              "--batch", 4, "--device", "cpu", "--precision", "fp32", "--out", tmp_path / "run")  # fmt: skip
    result = run(*common, "--epochs", 1, "--recipe", "paper", "--val", people)
    assert result.exit_code == 0, result.output
    assert "AP" in result.stderr
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert entries[0]["step"] == 2
    assert entries[0]["lr"] == 5e-4
    again = run(*common, "--epochs", 1)
    assert again.exit_code == 6
    assert "is of another run (recipe paper instead of modern)" in again.stderr

    bare = run(*common[:-1], tmp_path / "run[red]", "--epochs", 0.5)
    assert "run[red]: done (weights: last.safetensors)" in bare.stderr.replace("\n", "")

    weights = tmp_path / "run" / "last.safetensors"
    report, results = tmp_path / "report.json", tmp_path / "results.json"
    marked = Path(shutil.copy(people, tmp_path / "people[red].json"))
    result = run("evaluate", "--annotations", marked, "--data", images, "--weights", weights, "--no-flip", "--device",
                 "cpu", "--precision", "fp32", "--report", report, "--results", results)  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(report.read_text())
    assert {"AP", "AP50", "AP75", "APm", "APl", "AR", "protocol"} <= told.keys()
    assert told["protocol"]["flip"] is False
    assert told["protocol"]["decoding"] == "published"
    assert len(json.loads(results.read_text())) == 8
    assert "annotations: people[red].json, boxes: gt" in " ".join(result.stdout.split())

    content = json.loads(people.read_text())
    for person in content["annotations"]:
        del person["keypoints"]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    result = run("train", "pseudo-label", "--weights", weights, "--data", images, "--boxes-annotations", boxes,
                 "--out", tmp_path / "labels.json", "--min-score", -9, "--max-uncertainty", 9, "--device", "cpu",
                 "--precision", "fp32")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "labels.json").read_text())["annotations"]) == 8


@pytest.mark.parametrize(
    ("given", "lr", "location_weight"),
    [((), 5e-4, 0.0), (("--lr", 1e-4, "--location-weight", 7), 1e-4, 7.0), (("--recipe", "modern"), 1e-3, 400.0)],
)
def test_what_is_given_beside_a_recipe_counts(
    data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: Any,
    given: tuple[object, ...],
    lr: float,
    location_weight: float,
) -> None:
    images, people = data
    options: list[Any] = []
    monkeypatch.setattr("cpnpose.training.train_pose.train_pose", lambda told, **_: options.append(told) or {})
    recipe = ("--recipe", "paper")
    result = run("train", "pose", "--data", images, "--annotations", people, "--out", tmp_path, *recipe, *given)
    assert result.exit_code == 0, result.output
    assert (options[0].lr, options[0].location_weight) == (lr, location_weight)


def test_the_benchmark_tells_both_speeds(data: tuple[Path, Path], tmp_path: Path, monkeypatch: Any) -> None:
    from cpnpose.training import benchmark

    monkeypatch.setattr(benchmark.benchmark, "__kwdefaults__", {"rounds": 1, "steps": 1})
    result = run("train", "pose", "--data", data[0], "--annotations", data[1], "--model", "cpn-light", "--size",
                 "64x64", "--batch", 2, "--device", "cpu", "--out", tmp_path / "run", "--benchmark")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "cpn-light 64x64 batch 2: loop " in result.stdout
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--mix", "1,2"), 2, "--mix 1,2: 1 annotation files need 1 numbers"),
        (("--mix", "x"), 2, "write one number for each annotation file"),
        (("--mix", "-1"), 2, "must not be negative"),
        (("--mix", "nan"), 2, "must not be negative"),
        (("--epochs", "inf"), 2, "--epochs"),
        (("--lr", "nan"), 2, "--lr"),
        (("--seed", "-1"), 2, "--seed"),
        (("--seed", str(2**23)), 2, "--seed"),
        (("--size", "100x100"), 2, "HEIGHTxWIDTH"),
        (("--precision", "fp8"), 2, "use auto, fp32 or bf16"),
        (("--data", "nowhere"), 3, "--data nowhere"),
        (("--init", "nowhere.safetensors"), 5, "nowhere.safetensors"),
        (("--teacher", "nobody"), 5, "nobody"),
        (("--batch", "9"), 6, "8 people are fewer than the 9 of a step"),
    ],
)
def test_faults_are_one_line(
    data: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, str], code: int, told: str
) -> None:
    result = run("train", "pose", "--data", data[0], "--annotations", data[1], "--model", "cpn-light", "--size",
                 "64x64", "--batch", 4, "--device", "cpu", "--out", tmp_path / "run", *arguments)  # fmt: skip
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert not (tmp_path / "run").exists() or code == 6  # there the people were read first


@pytest.mark.parametrize("command", [("pose", "--model", "cpn-light", "--batch", 4), ("detector", "--steps", 1)])
def test_a_file_in_the_place_of_the_run_is_told(data: tuple[Path, Path], tmp_path: Path, command: Any) -> None:
    (tmp_path / "run").write_text("mine")
    for out in (tmp_path / "run", tmp_path / "run" / "below"):
        result = run("train", *command, "--data", data[0], "--annotations", data[1], "--size", "64x64", "--device",
                     "cpu", "--out", out)  # fmt: skip
        assert result.exit_code == 4, result.output
        assert f"cannot write {out}: " in result.stderr
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--lr", "inf"), 2, "--lr"),
        (("--minutes", "-1"), 2, "--minutes"),
        (("--seed", "-1"), 2, "--seed"),
        (("--seed", str(2**31)), 2, "--seed"),
        (("--threads", "-1"), 2, "--threads"),
        (("--data", "nowhere"), 3, "8 of 8 are missing, check --data"),
        (("--val", "nowhere.json"), 3, "nowhere.json"),
        (("--annotations", "numbers.json"), 3, "numbers.json: no COCO annotation file; the entries of 'images' must"),
    ],
)
def test_faults_of_detector_training_are_one_line_at_once(
    data: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, str], code: int, told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.json").write_text('{"images": [1, 2], "annotations": [3]}')
    result = run("train", "detector", "--data", data[0], "--annotations", data[1], "--size", "64x64", "--batch", 1,
                 "--steps", 1, "--device", "cpu", "--out", tmp_path / "run", *arguments)  # fmt: skip
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_validation_without_keypoints_is_told(data: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(data[1].read_text())
    for person in content["annotations"]:
        del person["keypoints"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    result = run("train", "pose", "--data", data[0], "--annotations", data[1], "--val", tmp_path / "val.json",
                 "--model", "cpn-light", "--size", "64x64", "--batch", 4, "--device", "cpu", "--out",
                 tmp_path / "run")  # fmt: skip
    assert result.exit_code == 6
    assert "no person with keypoints in" in result.stderr
    assert "val.json" in result.stderr
    result = run("evaluate", "--annotations", data[1], "--data", data[0], "--decoding", "best")
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--detector", "person-detector"), "--detector has no effect with --boxes gt; leave it out, or use --boxes"),
        (("--boxes", "gt", "--detector-weights", "d.safetensors"), "--detector-weights has no effect with --boxes gt;"),
        (("--boxes", "b.json", "--detector", "none"), "--detector has no effect with --boxes b.json;"),
        (
            ("--boxes", "detector", "--detector", "none"),
            "--boxes detector needs a detector, and --detector none is none; "
            "use --boxes gt, or name one of: person-detector, fasterrcnn_resnet50_fpn_v2, ",
        ),
        (("--oks-nms", 0.9), "--oks-nms has no effect with --boxes gt: its poses are all kept; leave it out"),
    ],
)
def test_an_evaluation_refuses_what_its_boxes_leave_without_effect(
    data: tuple[Path, Path], arguments: tuple[object, ...], told: str
) -> None:
    result = run("evaluate", "--annotations", data[1], "--data", data[0], *arguments)
    assert result.exit_code == 2
    assert f"cpnpose: error: {told}" in result.stderr


@pytest.mark.parametrize(("command", "option"), [("evaluate", "--oks-nms"), ("evaluate-boxes", "--nms")])
def test_no_threshold_is_out_of_its_range(data: tuple[Path, Path], command: str, option: str) -> None:
    for value in (-3, 5):
        result = run(command, "--annotations", data[1], "--data", data[0], option, value)
        assert result.exit_code == 2
        assert f"Invalid value for '{option}'" in result.stderr


@pytest.mark.parametrize(
    ("command", "option"), [("evaluate", "--report"), ("evaluate", "--results"), ("evaluate-boxes", "--report")]
)
def test_figures_are_never_written_over_the_annotations(data: tuple[Path, Path], command: str, option: str) -> None:
    before = data[1].read_bytes()
    common = (command, "--annotations", data[1], "--data", data[0], option)
    result = run(*common, data[1])
    assert result.exit_code == 4
    assert f"error: {option} {data[1]} is an input, which is never overwritten; choose another name" in result.stderr
    assert data[1].read_bytes() == before
    result = run(*common, data[0])
    assert result.exit_code == 4
    assert f"error: {option} {data[0]} is a folder; give the name of a file" in result.stderr


def test_figures_are_in_their_file_before_they_are_shown(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    content = json.loads(data[1].read_text())
    for image in content["images"]:
        image.update(width=200, height=160)
    data[1].write_text(json.dumps(content))
    monkeypatch.setattr("cpnpose.cli.tables.print_table", stop)
    for command in ("evaluate", "evaluate-boxes"):
        report = tmp_path / f"{command}.json"
        result = run(command, "--annotations", data[1], "--data", data[0], "--device", "cpu", "--report", report)
        assert result.exit_code == 130, result.output
        assert report.exists()


def test_a_report_and_results_of_one_name_and_labels_over_the_boxes_are_refused(data: tuple[Path, Path]) -> None:
    common = ("--data", data[0], "--device", "cpu")
    result = run("evaluate", "--annotations", data[1], *common, "--report", "both.json", "--results", "both.json")
    assert result.exit_code == 4
    assert "--results both.json is the name of another result, too; choose another name" in result.stderr
    before = data[1].read_bytes()
    result = run("train", "pseudo-label", "--weights", "default", "--boxes-annotations", data[1], *common,
                 "--out", data[1])  # fmt: skip
    assert result.exit_code == 4
    assert f"--out {data[1]} is an input" in result.stderr
    assert data[1].read_bytes() == before


def test_a_detector_is_trained_for_the_size_that_is_asked_for(data: tuple[Path, Path], tmp_path: Path) -> None:
    common = ("train", "detector", "--data", data[0], "--annotations", data[1], "--device", "cpu", "--out",
              tmp_path / "run", "--steps", 1, "--batch", 1)  # fmt: skip
    result = run(*common, "--size", "100x128")
    assert result.exit_code == 2
    assert "HEIGHTxWIDTH" in result.stderr
    result = run(*common, "--size", "96x128")
    assert result.exit_code == 0, result.output
    metadata = read_metadata(tmp_path / "run" / "last.safetensors")
    assert metadata.config["input_pixels"] == 96 * 128
    assert metadata.input_size == (96, 128)


def test_the_table_of_joints_is_whole_in_a_narrow_terminal() -> None:
    pck = {name: float(number) for number, name in enumerate(KEYPOINT_NAMES, start=10)} | {"mean": 99.5}
    console = Console(width=60, record=True, file=io.StringIO())
    print_table(console, ("joint", "left", "right", "middle"), _pck_rows(pck))
    rows = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["wrist", str(pck["left_wrist"]), str(pck["right_wrist"])] in rows
    assert ["nose", str(pck["nose"])] in rows
    assert ["mean", "99.5"] in rows
