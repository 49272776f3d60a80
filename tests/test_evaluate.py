from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpnpose.errors import CpnposeError, InputError, WeightsError
from cpnpose.evaluate import EvaluationOptions, coco_results, evaluate_pose, keypoint_errors, keypoint_metrics
from cpnpose.models.detector import ARCHITECTURE, DetectorConfig, build_detector
from cpnpose.models.weights import WeightsMetadata, save_weights
from cpnpose.pose.keypoints import KEYPOINT_NAMES
from cpnpose.pose.types import Poses

PEOPLE, PER_IMAGE = 12, 2
SIDE = 100.0


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """An annotation file of large people, all keypoints visible."""
    generator = np.random.default_rng(0)
    people = []
    for number in range(PEOPLE):
        corner = np.array([20.0 + 300 * (number % PER_IMAGE), 30.0])
        points = corner + generator.uniform(0, SIDE, (17, 2))
        keypoints = np.concatenate([points, np.full((17, 1), 2.0)], axis=1)
        people.append(
            {
                "id": number + 1,
                "image_id": 1 + number // PER_IMAGE,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*corner.tolist(), SIDE, SIDE],
                "area": SIDE * SIDE,
                "num_keypoints": 17,
                "keypoints": keypoints.flatten().tolist(),
            }
        )
    images = [{"id": i + 1, "file_name": f"{i + 1:012d}.png"} for i in range(PEOPLE // PER_IMAGE)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}))
    return path


def predictions(path: Path, offset: float = 0.0, every: int = 1) -> list[dict[str, Any]]:
    """The truth, every keypoint moved by ``offset`` pixels, for each ``every``-th person."""
    found = []
    for row, person in enumerate(json.loads(path.read_text())["annotations"]):
        points = np.array(person["keypoints"]).reshape(17, 3) + np.array([offset, 0, 0])
        if row % every == 0:
            found.append(
                {"image_id": person["image_id"], "category_id": 1, "keypoints": points.flatten().tolist(), "score": 0.9}
            )
    return found


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_perfect_predictions_have_100(truth: Path) -> None:
    metrics = keypoint_metrics(truth, predictions(truth))
    assert [metrics[name] for name in ("AP", "AP50", "AP75", "APl", "AR")] == [100.0] * 5
    assert metrics["APm"] == -1  # COCO's word for: there is nobody of that size
    errors = keypoint_errors(truth, predictions(truth))
    assert set(errors["pck"]) == {*KEYPOINT_NAMES, "mean"}
    assert set(errors["pck"].values()) == {100.0}
    assert errors["mean_oks_error"] == 0
    assert errors["people"] == PEOPLE


def test_known_degradations(truth: Path) -> None:
    half = keypoint_metrics(truth, predictions(truth, every=2))
    assert half["AR"] == 50.0
    assert 49 <= half["AP"] <= 51
    # 9 pixels on a person of 100 x 100: PCK within a tenth still counts, OKS lies amid COCO's thresholds.
    moved = keypoint_metrics(truth, predictions(truth, 9.0))
    oks = 1 - keypoint_errors(truth, predictions(truth, 9.0))["mean_oks_error"]
    assert moved["AR"] == pytest.approx(100 * np.mean(oks >= np.arange(0.5, 1.0, 0.05)), abs=0.1)
    assert 0 < moved["AR"] < 100
    assert keypoint_errors(truth, predictions(truth, 9.0))["pck"]["mean"] == 100
    assert keypoint_errors(truth, predictions(truth, 11.0))["pck"]["mean"] == 0
    assert keypoint_metrics(truth, predictions(truth, 500.0))["AP"] == 0


@pytest.mark.parametrize("sides", [(SIDE, SIDE / 4), (SIDE / 4, SIDE)])
def test_pck_is_measured_by_the_longer_side_of_the_box(truth: Path, sides: tuple[float, float]) -> None:
    def narrow(content: dict[str, Any]) -> None:
        for person in content["annotations"]:
            person["bbox"][2:] = sides

    change(truth, narrow)
    assert keypoint_errors(truth, predictions(truth, 9.0))["pck"]["mean"] == 100
    assert keypoint_errors(truth, predictions(truth, 11.0))["pck"]["mean"] == 0


def test_nothing_found_is_zero(truth: Path) -> None:
    assert set(keypoint_metrics(truth, []).values()) == {0.0}
    assert keypoint_errors(truth, [])["people"] == 0
    assert keypoint_errors(truth, [])["mean_oks_error"] is None


def test_neither_file_nor_results_are_changed(truth: Path) -> None:
    before, results = truth.read_bytes(), predictions(truth)
    copied = json.loads(json.dumps(results))
    keypoint_metrics(truth, results)
    assert truth.read_bytes() == before
    assert results == copied


def test_crowds_cost_nothing(truth: Path) -> None:
    def crowd(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = 1

    results = predictions(truth)
    change(truth, crowd)
    assert keypoint_metrics(truth, results)["AP"] == 100
    assert keypoint_errors(truth, results)["people"] == PEOPLE - 1


def test_what_can_be_told_from_the_rest_may_be_missing(truth: Path) -> None:
    def bare(content: dict[str, Any]) -> None:
        del content["categories"]
        for person in content["annotations"]:
            for name in ("iscrowd", "num_keypoints", "category_id", "id"):
                del person[name]
        nobody = {"image_id": 1, "bbox": [0, 0, 5, 5]}
        content["annotations"].append(nobody)

    results = predictions(truth)
    assert keypoint_metrics(change(truth, bare), results)["AP"] == 100


def from_zero(person: dict[str, Any]) -> None:
    person["id"] -= 1


def twice(person: dict[str, Any]) -> None:
    person["id"] //= 2


def in_words(person: dict[str, Any]) -> None:
    person["id"] = f"person {person['id']}"


def other_category(person: dict[str, Any]) -> None:
    person["category_id"] = 0


def nulls(person: dict[str, Any]) -> None:
    person.update(id=None, category_id=None, iscrowd=None)


@pytest.mark.parametrize("alter", [from_zero, twice, in_words, other_category, nulls])
def test_numbers_and_categories_of_other_programs_change_no_figure(
    truth: Path, alter: Callable[[dict[str, Any]], None]
) -> None:
    results = predictions(truth)

    def altered(content: dict[str, Any]) -> None:
        for person in content["annotations"]:
            alter(person)
        content["categories"] = [{"id": 0, "name": "human"}]
        dog = {"id": 0, "image_id": 1, "category_id": 18, "bbox": [0, 0, 5, 5], "area": None, "keypoints": [None] * 51}
        content["annotations"].append(dog)

    assert keypoint_metrics(change(truth, altered), results)["AP"] == 100
    assert keypoint_errors(truth, results)["people"] == PEOPLE


def test_an_area_of_0_is_told(truth: Path) -> None:
    def nothing(content: dict[str, Any]) -> None:
        content["annotations"][3]["area"] = 0

    with pytest.raises(InputError, match=r"truth\.json: annotation 4 has no 'area' above 0, which OKS needs"):
        keypoint_metrics(change(truth, nothing), [])


def test_missing_areas_and_ids_that_are_strings_are_told(truth: Path) -> None:
    results = predictions(truth)

    def no_area(content: dict[str, Any]) -> None:
        del content["annotations"][3]["area"]

    def strings(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = str(image["id"])

    with pytest.raises(InputError, match=r"truth\.json: annotation 4 has no 'area' above 0, which OKS needs"):
        keypoint_metrics(change(truth, no_area), results)
    with pytest.raises(InputError, match="image id '1' is not a whole number"):
        keypoint_metrics(change(truth, strings), results)


def test_results_are_in_cocos_format(truth: Path) -> None:
    points = np.arange(34, dtype=np.float32).reshape(1, 17, 2)
    poses = Poses(points, np.full((1, 17), 0.75, np.float32), np.array([0.6], np.float32), np.zeros((1, 4), np.float32),
                  np.ones(1, np.float32))  # fmt: skip
    (result,) = coco_results(poses, np.array([42]))
    assert result["image_id"] == 42
    assert result["category_id"] == 1
    assert result["keypoints"][:6] == [0, 1, 0.75, 2, 3, 0.75]
    assert len(result["keypoints"]) == 51
    assert result["score"] == pytest.approx(0.6)
    assert json.loads(json.dumps(result)) == result


@pytest.fixture
def options(drawn_for_evaluation: Any, tiny_weights: Path) -> EvaluationOptions:
    return EvaluationOptions(
        annotations=drawn_for_evaluation[1], data=drawn_for_evaluation[0], weights=str(tiny_weights), device="cpu",
        precision="fp32", batch=4,
    )  # fmt: skip


@pytest.fixture
def drawn_for_evaluation(truth: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Images for the annotation file, and the file."""
    import cv2

    generator = np.random.default_rng(1)
    for image in json.loads(truth.read_text())["images"]:
        cv2.imwrite(str(tmp_path / image["file_name"]), generator.integers(0, 256, (160, 450, 3), np.uint8))
    return tmp_path, truth


def test_the_report_has_the_figures_and_their_protocol(options: EvaluationOptions) -> None:
    measured = evaluate_pose(options)
    assert len(measured.results) == PEOPLE
    assert {"AP", "AP50", "AP75", "APm", "APl", "AR", "pck", "mean_oks_error", "protocol"} <= measured.report.keys()
    protocol = measured.report["protocol"]
    assert protocol["weights"] == "tiny"
    assert protocol["size"] == "64x64"
    assert protocol["boxes"] == "gt"
    assert protocol["flip"] is True
    assert protocol["annotations"] == "truth.json"
    assert json.loads(json.dumps(measured.report, allow_nan=False)) == measured.report


def test_boxes_of_a_file_give_what_annotated_boxes_give(options: EvaluationOptions, tmp_path: Path) -> None:
    """As detections by image id, as detections by file name, and as the annotation file itself."""
    people = json.loads(options.annotations.read_text())["annotations"]
    by_id = [{"image_id": p["image_id"], "category_id": 1, "bbox": p["bbox"], "score": 1.0} for p in people]
    by_name = [box | {"image_id": f"{box['image_id']:012d}.png"} for box in by_id]
    (tmp_path / "id.json").write_text(json.dumps(by_id))
    (tmp_path / "name.json").write_text(json.dumps(by_name))
    expected = evaluate_pose(options)
    for path in (tmp_path / "id.json", tmp_path / "name.json", options.annotations):
        measured = evaluate_pose(dataclasses.replace(options, boxes=str(path), oks_nms=1.0))
        assert measured.metrics == expected.metrics
        assert len(measured.results) == PEOPLE
        assert measured.report["protocol"]["boxes"] == str(path)
    others = [box | {"image_id": 900} for box in by_id]
    (tmp_path / "others.json").write_text(json.dumps(others))
    with pytest.raises(InputError, match=r"others\.json: no box of any image of .*truth\.json"):
        evaluate_pose(dataclasses.replace(options, boxes=str(tmp_path / "others.json")))


def test_of_two_boxes_around_the_same_person_the_surer_one_counts(options: EvaluationOptions, tmp_path: Path) -> None:
    people = json.loads(options.annotations.read_text())["annotations"]
    boxes = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": score}
        for person in people
        for score in (0.6, 0.8)
    ]
    (tmp_path / "double.json").write_text(json.dumps(boxes))
    (tmp_path / "sure.json").write_text(json.dumps(boxes[1::2]))
    double, sure = (dataclasses.replace(options, boxes=str(tmp_path / f"{name}.json")) for name in ("double", "sure"))
    measured = evaluate_pose(double)
    assert len(measured.results) == PEOPLE
    assert measured.results == evaluate_pose(sure).results
    assert len(evaluate_pose(dataclasses.replace(double, oks_nms=1.0)).results) == 2 * PEOPLE


def test_a_detector_of_a_file_takes_the_place_of_the_named_one(options: EvaluationOptions, tmp_path: Path) -> None:
    config = DetectorConfig(channels=16, hidden=32, proposals=20, input_pixels=96 * 128)
    metadata = WeightsMetadata(
        architecture=ARCHITECTURE, input_size=(96, 128), kind="detector", config=dataclasses.asdict(config)
    )
    path = tmp_path / "tiny.safetensors"
    save_weights(path, build_detector(config).state_dict(), metadata)
    detected = dataclasses.replace(options, boxes="detector", detector="default", detector_weights=path)
    assert evaluate_pose(detected).report["protocol"]["boxes"] == str(path)
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        evaluate_pose(dataclasses.replace(detected, detector_weights=tmp_path / "none.safetensors"))


def test_missing_files_are_told(options: EvaluationOptions, tmp_path: Path) -> None:
    import dataclasses

    with pytest.raises(InputError, match="--data"):
        evaluate_pose(dataclasses.replace(options, data=tmp_path / "nowhere"))
    (options.data / "000000000003.png").unlink()
    for boxes in ("gt", str(options.annotations)):
        with pytest.raises(CpnposeError, match=r"000000000003\.png.*truth\.json"):
            evaluate_pose(dataclasses.replace(options, boxes=boxes))
