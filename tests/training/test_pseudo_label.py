from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpnpose.errors import OptionError, TrainingError
from cpnpose.evaluate import keypoint_metrics
from cpnpose.pose.types import PersonCrops, Poses
from cpnpose.training import pseudo_label as module
from cpnpose.training.annotations import read_people
from cpnpose.training.pseudo_label import PseudoLabelOptions, believed, pseudo_label


class KnowingNetwork:
    """Stands in for a trained network: knows the truth, and is unsure where it is told to be."""

    input_size = (64, 64)
    preprocessing: Any = None
    number_format = "float32"

    def __init__(self, truth: dict[tuple[float, ...], Any]) -> None:
        self.truth = truth

    def __call__(self, crops: PersonCrops) -> Poses:
        points = np.array([self.truth[tuple(np.round(box, 1))] for box in crops.boxes_xyxy.tolist()], np.float32)
        scores = np.full((len(crops), 17), 1.2, np.float32)
        uncertainty = np.zeros((len(crops), 17), np.float32)
        scores[:, 9] = 0.7  # not confident
        uncertainty[:, 10] = 30.0  # not consistent
        points[:, 11] += 500  # not in the box
        return Poses(points, scores, crops.scores * 1.1, crops.boxes_xyxy, crops.scores, uncertainty_px=uncertainty)


@pytest.fixture
def boxes_only(drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PseudoLabelOptions:
    from cpnpose.pose.types import Preprocessing

    content = json.loads(drawn.annotations.read_text())
    truth = {}
    for person in content["annotations"]:
        x, y, w, h = person["bbox"]
        box = tuple(np.round(np.array([x, y, x + w, y + h], np.float32), 1).tolist())
        place = np.array([x + w / 2, y + h / 2])
        truth[tuple(np.round(box, 1))] = np.tile(place, (17, 1)) + np.arange(17)[:, None] * 0.5
        if person["id"] != 1:
            del person["keypoints"]
    content["annotations"][4]["iscrowd"] = 1
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    network = KnowingNetwork(truth)
    network.preprocessing = Preprocessing()
    monkeypatch.setattr(module, "load_pose_network", lambda *_, **__: network)
    return PseudoLabelOptions("trained", drawn.images, path, tmp_path / "labels" / "labels.json")


def test_sure_keypoints_are_written_and_the_others_masked(boxes_only: PseudoLabelOptions) -> None:
    told: list[tuple[int, int]] = []
    counts = pseudo_label(boxes_only, progress=lambda *numbers: told.append(numbers))
    assert counts.people == counts.labelled == 16  # of 18: one has keypoints, one is a crowd
    assert told[-1][0] == told[-1][1]
    records = read_people([boxes_only.out], boxes_only.data)
    assert len(records) == 16
    assert (records.keypoints[:, [9, 10, 11]] == 0).all()
    assert (np.delete(records.keypoints, [9, 10, 11], axis=1)[..., 2] == 2).all()
    middle = (records.boxes_xyxy[:, :2] + records.boxes_xyxy[:, 2:]) / 2
    assert records.keypoints[:, 0, :2] == pytest.approx(middle, abs=0.1)
    assert counts.keypoints == 16 * 14
    content = json.loads(boxes_only.out.read_text())
    assert {person["num_keypoints"] for person in content["annotations"]} == {14}
    assert [person["id"] for person in content["annotations"]] == list(range(1, 17))
    assert keypoint_metrics(boxes_only.out, []) is not None  # a complete COCO file


def test_other_categories_are_nobody(boxes_only: PseudoLabelOptions) -> None:
    content = json.loads(boxes_only.boxes_annotations.read_text())
    for person in content["annotations"][:8]:
        person |= {"category_id": 3}
    content["annotations"][9] |= {"area": None}
    boxes_only.boxes_annotations.write_text(json.dumps(content))
    assert pseudo_label(boxes_only).people == 10
    assert keypoint_metrics(boxes_only.out, []) is not None
    for person in content["annotations"]:
        person |= {"category_id": 3}
    boxes_only.boxes_annotations.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=r"boxes\.json: nobody is to be labelled"):
        pseudo_label(boxes_only)


def test_people_with_too_few_sure_keypoints_are_left_out(boxes_only: PseudoLabelOptions) -> None:
    from dataclasses import replace

    with pytest.raises(TrainingError, match="the network is sure of nobody; lower --min-score"):
        pseudo_label(replace(boxes_only, min_keypoints=15))
    assert not boxes_only.out.exists()
    with pytest.raises(OptionError, match="--max-uncertainty"):
        pseudo_label(replace(boxes_only, max_uncertainty=0.0))


def test_what_is_believed() -> None:
    options = PseudoLabelOptions("w", Path(), Path(), Path(), min_score=0.8, max_uncertainty=0.05)
    points = np.full((1, 17, 2), 50.0, np.float32)
    scores, apart = np.full((1, 17), 0.8, np.float32), np.full((1, 17), 10.0, np.float32)
    scores[0, 1], apart[0, 2], points[0, 3, 0], points[0, 4, 0] = 0.79, 10.1, -11.0, -9.0
    box = np.array([[0, 0, 100, 200]], np.float32)
    poses = Poses(points, scores, scores[:, 0], box, scores[:, 0], uncertainty_px=apart)
    assert np.flatnonzero(~believed(poses, options)[0]).tolist() == [1, 2, 3]


def test_a_real_network_runs_through(drawn: Any, tmp_path: Path, tiny_weights: Path) -> None:
    content = json.loads(drawn.annotations.read_text())
    for person in content["annotations"]:
        del person["keypoints"]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    options = PseudoLabelOptions(
        str(tiny_weights), drawn.images, tmp_path / "boxes.json", tmp_path / "labels.json", min_score=-9.0,
        max_uncertainty=9.0, min_keypoints=1, device="cpu", precision="fp32",
    )  # fmt: skip
    counts = pseudo_label(options)
    assert counts.people == counts.labelled == 18
    assert len(read_people([options.out], drawn.images)) == 18
