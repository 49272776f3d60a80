"""Box metrics on cases whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cpnpose.cli.main import app
from cpnpose.errors import InputError
from cpnpose.evaluate_box_truth import check_sizes, read_truth
from cpnpose.evaluate_boxes import (
    box_metrics,
    detect_all,
    recall_by_height,
    suppressed,
    sweep_thresholds,
)
from cpnpose.pipeline.detect import PersonDetector
from cpnpose.pose.types import Detections, FloatArray, ImageArray, Picture

pytest.importorskip("pycocotools")

BIG, SMALL, CROWD = [20.0, 20, 50, 80], [100.0, 10, 20, 20], [150.0, 100, 120, 90]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Two images: a big person, a small one and a crowd; a big person."""
    boxes = [(1, BIG, 0), (1, SMALL, 0), (1, CROWD, 1), (2, BIG, 0)]
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 300, "height": 200} for i in (1, 2)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (image, box, crowd) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(data))
    for i in (1, 2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((200, 300, 3), 40 * i, np.uint8))
    return path


def people(*rows: tuple[list[float], float]) -> Detections:
    boxes = [[x, y, x + w, y + h] for (x, y, w, h), _ in rows]
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array([score for _, score in rows], np.float32))


def test_the_truth_gets_everything(annotations: Path) -> None:
    metrics = box_metrics(read_truth(annotations), {1: people((BIG, 0.9), (SMALL, 0.8)), 2: people((BIG, 0.9))})
    assert metrics == {"AP": 100, "AP50": 100, "AP75": 100, "AP50_above_32px": 100, "AR10": 100}


def test_boxes_without_a_category_are_of_persons(annotations: Path) -> None:
    """As they are for training."""
    content = json.loads(annotations.read_text())
    for entry in content["annotations"]:
        del entry["category_id"]
    annotations.write_text(json.dumps(content))
    found = {1: people((BIG, 0.9), (SMALL, 0.8)), 2: people((BIG, 0.9))}
    assert box_metrics(read_truth(annotations), found)["AP"] == 100


def test_areas_and_crowds_may_be_null(annotations: Path) -> None:
    content = json.loads(annotations.read_text())
    for entry in content["annotations"]:
        entry |= {"area": None, "iscrowd": entry["iscrowd"] or None}
    annotations.write_text(json.dumps(content))
    found = {1: people((BIG, 0.9), (SMALL, 0.8)), 2: people((BIG, 0.9))}
    assert box_metrics(read_truth(annotations), found)["AP"] == 100


@pytest.mark.parametrize("change", [{"category_id": 0}, {"image_id": "1"}])
def test_a_file_in_which_nobody_counts_is_told(annotations: Path, change: dict[str, Any]) -> None:
    content = json.loads(annotations.read_text())
    for entry in content["annotations"]:
        entry |= change
    annotations.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"boxes\.json: holds no box of a person \(category 1\)"):
        read_truth(annotations)


def test_a_missed_small_person_does_not_count_above_32_pixels(annotations: Path) -> None:
    metrics = box_metrics(read_truth(annotations), {1: people((BIG, 0.9)), 2: people((BIG, 0.9))})
    assert metrics["AP50_above_32px"] == 100
    assert metrics["AR10"] == pytest.approx(200 / 3, abs=0.01)
    assert metrics["AP50"] == pytest.approx(67 / 101 * 100, abs=0.01)


def test_boxes_in_a_crowd_are_neither_right_nor_wrong(annotations: Path) -> None:
    inside = [170.0, 110, 40, 60]
    found = {1: people((inside, 0.99), (BIG, 0.9), (SMALL, 0.8)), 2: people((BIG, 0.9))}
    assert box_metrics(read_truth(annotations), found)["AP"] == 100
    found[1] = people(([230.0, 10, 40, 60], 0.99), (BIG, 0.9), (SMALL, 0.8))
    assert box_metrics(read_truth(annotations), found)["AP"] < 100


def test_nothing_found_is_zero(annotations: Path) -> None:
    assert set(box_metrics(read_truth(annotations), {1: Detections.empty(), 2: Detections.empty()}).values()) == {0.0}


def test_suppression_keeps_the_better_box() -> None:
    raw = {1: people((BIG, 0.6), ([22.0, 20, 50, 80], 0.9), (SMALL, 0.5))}
    np.testing.assert_allclose(suppressed(raw, 0.5)[1].scores, [0.9, 0.5])
    assert len(suppressed(raw, 0.99)[1]) == 3


def test_sweep_finds_the_score_between_people_and_others(annotations: Path) -> None:
    empty = [200.0, 10, 40, 60]
    raw = {1: people((BIG, 0.7), (SMALL, 0.1), ([24.0, 22, 50, 80], 0.6), (empty, 0.3)), 2: people((BIG, 0.65))}
    best = sweep_thresholds(read_truth(annotations), raw)["best"]
    assert best["nms"] < 0.8
    for name in ("score", "track_score"):
        assert best[name] == {"threshold": pytest.approx(0.65), "precision": 100, "recall": 100}


def test_a_missed_person_weighs_more_for_the_score_of_images_than_for_tracks(annotations: Path) -> None:
    empty, other = [200.0, 10, 40, 60], [250.0, 20, 40, 60]
    raw = {1: people((BIG, 0.9), (empty, 0.5), (other, 0.4)), 2: people((BIG, 0.3), (empty, 0.35))}
    # Of two people: at 0.9 precision 1 and recall 1/2 (F1 2/3, F2 5/9), at 0.3 2/5 and 1 (F1 4/7, F2 10/13).
    best = sweep_thresholds(read_truth(annotations), raw)["best"]
    assert best["track_score"] == {"threshold": pytest.approx(0.9), "precision": 100, "recall": 50}
    assert best["score"] == {"threshold": pytest.approx(0.3), "precision": 40, "recall": 100}


def test_boxes_in_a_crowd_lower_no_precision(annotations: Path) -> None:
    beside = [230.0, 10, 40, 60]
    inside = [([155.0 + 35 * i, 105, 30, 70], 0.95) for i in range(3)]
    raw = {1: people((BIG, 0.9), *inside, (beside, 0.5)), 2: people((BIG, 0.4))}
    assert sweep_thresholds(read_truth(annotations), raw)["best"]["track_score"] == {
        "threshold": pytest.approx(0.4),
        "precision": pytest.approx(66.7),
        "recall": 100,
    }


def test_small_boxes_and_small_people_lower_no_precision(annotations: Path) -> None:
    small_empty = [250.0, 10, 20, 20]
    raw = {1: people((BIG, 0.9), (SMALL, 0.8), (small_empty, 0.95)), 2: people((BIG, 0.4))}
    best = sweep_thresholds(read_truth(annotations), raw)["best"]["score"]
    assert best == {"threshold": pytest.approx(0.4), "precision": 100, "recall": 100}


def test_recall_counts_people_by_their_height_in_a_640x480_image(annotations: Path) -> None:
    found = {1: people((BIG, 0.7), (BIG, 0.6), (CROWD, 0.9)), 2: people((BIG, 0.4))}
    scale = (640 * 480 / (300 * 200)) ** 0.5
    assert 40 < 20 * scale < 64
    assert 128 < 80 * scale < 256
    assert recall_by_height(read_truth(annotations), found, 0.5) == {
        "40-64": {"recall": 0, "people": 1},
        "128-256": {"recall": 50, "people": 2},
    }
    assert recall_by_height(read_truth(annotations), {2: found[2]}, 0.3) == {"128-256": {"recall": 100, "people": 1}}


def test_detect_all_gives_each_image_its_own_people(annotations: Path) -> None:
    def by_brightness(images: list[ImageArray]) -> list[Detections]:
        return [people((BIG, float(image[0, 0, 0]) / 100)) for image in images]

    found = detect_all(by_brightness, read_truth(annotations), annotations.parent)
    assert {i: round(float(p.scores[0]), 2) for i, p in found.items()} == {1: 0.4, 2: 0.8}
    assert len(detect_all(by_brightness, read_truth(annotations), annotations.parent, limit=1)) == 1


def test_missing_image_is_named(annotations: Path, tmp_path: Path) -> None:
    (tmp_path / "2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png"):
        detect_all(lambda images: [Detections.empty()] * len(images), read_truth(annotations), tmp_path)


@pytest.mark.parametrize(
    ("part", "row", "name", "message"),
    [
        ("images", 1, "file_name", "image 2 has no 'file_name'"),
        ("images", 0, "width", "image 1 has no 'width' and 'height' above 0"),
        ("annotations", 2, "bbox", "annotation 2 has no 'bbox'"),
    ],
)
def test_what_annotations_lack_is_told_before_a_detector_is_loaded(
    part: str, row: int, name: str, message: str, annotations: Path
) -> None:
    check_sizes(read_truth(annotations))
    content = json.loads(annotations.read_text())
    del content[part][row][name]
    annotations.write_text(json.dumps(content))
    arguments = ["--annotations", str(annotations), "--data", str(annotations.parent), "--detector-weights", "nowhere"]
    result = CliRunner().invoke(app, ["evaluate-boxes", *arguments])
    assert result.exit_code != 0
    assert f"{annotations}: {message}" in result.stderr


class FindsBig:
    """A network that finds the big person everywhere."""

    device, number_format = torch.device("cpu"), "float32"

    def detect(
        self, images: Sequence[Picture], *, score: float, nms: float, max_people: int
    ) -> list[tuple[FloatArray, FloatArray]]:
        x, y, width, height = BIG
        return [(np.array([[x, y, x + width, y + height]], np.float32), np.ones(1, np.float32)) for _ in images]


def test_the_command_reads_the_annotations_once(
    annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, opened = Path.read_text, []

    def counted(self: Path, *arguments: Any, **named: Any) -> str:
        opened.append(self)
        return read(self, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", counted)
    monkeypatch.setattr("cpnpose.pipeline.load_detector.load_detector", lambda *_, **__: PersonDetector(FindsBig()))
    report = tmp_path / "report.json"
    arguments = ["--annotations", str(annotations), "--data", str(annotations.parent), "--report", str(report)]
    result = CliRunner().invoke(app, ["evaluate-boxes", *arguments])
    assert result.exit_code == 0, result.output
    assert opened.count(annotations) == 1
    told = json.loads(report.read_text())
    assert (told["images"], told["AP50_above_32px"]) == (2, 100)
    assert told["recall_by_height"]["128-256"] == {"recall": 100, "people": 2}
