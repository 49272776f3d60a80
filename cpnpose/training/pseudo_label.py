"""Self-training: people that only have a box get the keypoints that a trained network is sure of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.errors import OptionError, TrainingError
from cpnpose.evaluate import write_json
from cpnpose.evaluate_box_truth import PERSON
from cpnpose.media.images import read_image
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.device import check_precision
from cpnpose.pipeline.estimate import PoseNetwork, load_pose_network
from cpnpose.pose.keypoints import KEYPOINT_NAMES
from cpnpose.pose.types import Detections, Poses
from cpnpose.training.annotations import (
    box_of,
    check_image_folder,
    file_names,
    image_of,
    labelled_keypoints,
    read_annotations,
)
from cpnpose.training.distributed import check_one_process

_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class PseudoLabelOptions:
    """Whom to label, and which keypoints to believe."""

    weights: str
    data: Path
    boxes_annotations: Path
    """COCO file with boxes of people (category 1); people who have keypoints in it are left alone."""
    out: Path
    min_score: float = 0.8
    """Lowest keypoint score (heatmap / 255 + 0.5) that is believed."""
    max_uncertainty: float = 0.03
    """Greatest distance between the keypoint of the crop and that of its mirror image, as a share of the longer side
    of the box."""
    min_keypoints: int = 6
    """People with fewer believed keypoints are left out."""
    min_side: float = 32.0
    """People whose box is lower and narrower than this many pixels are left out."""
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None

    def check(self) -> None:
        """Raise an OptionError where a value is out of its range."""
        if self.max_uncertainty <= 0 or not 1 <= self.min_keypoints <= len(KEYPOINT_NAMES):
            raise OptionError("--max-uncertainty must be above 0 and --min-keypoints between 1 and 17")


@dataclass(frozen=True)
class PseudoLabels:
    """How many were labelled."""

    people: int
    """With a box and without keypoints."""
    labelled: int
    """Of them written to the file."""
    keypoints: int
    """Believed keypoints of those written."""


def believed(poses: Poses, options: PseudoLabelOptions) -> npt.NDArray[np.bool_]:
    """Which keypoints are confident, consistent under flip, and inside their box (widened by a tenth); (N, 17).

    Args:
        poses: of a network with flip test.
    """
    assert poses.uncertainty_px is not None
    low, high = poses.boxes_xyxy[:, None, :2], poses.boxes_xyxy[:, None, 2:]
    sides = high - low
    apart = poses.uncertainty_px / np.maximum(sides.max(axis=2), 1.0)
    inside = ((poses.keypoints_xy > low - 0.1 * sides) & (poses.keypoints_xy < high + 0.1 * sides)).all(axis=2)
    sure: npt.NDArray[np.bool_] = (
        (poses.keypoint_scores >= options.min_score) & (apart <= options.max_uncertainty) & inside
    )
    return sure


def pseudo_label(options: PseudoLabelOptions, *, progress: Callable[[int, int], None] | None = None) -> PseudoLabels:
    """Write a COCO keypoint file of people whose keypoints the network is sure of; the others have v = 0.

    Args:
        progress: called with (images done, images in all).

    Raises:
        OptionError: a value is out of its range or without effect, or it was started as several processes.
        InputError: annotations or images cannot be read.
        WeightsError: the weights cannot be loaded.
        TrainingError: nobody is left; no file is written.
        OutputError: the file cannot be written.
    """
    check_one_process("train pseudo-label")
    options.check()
    check_image_folder(options.data)
    file = options.boxes_annotations
    content = read_annotations(file)
    names = file_names(content, file)
    waiting: dict[int, list[dict[str, Any]]] = {}
    for person in content["annotations"]:
        if person.get("category_id", PERSON) != PERSON:
            continue
        box = box_of(person, file)
        large = max(box[2] - box[0], box[3] - box[1]) >= options.min_side
        if large and not person.get("iscrowd") and labelled_keypoints(person, file) is None:
            image_of(person, names, file)
            waiting.setdefault(person["image_id"], []).append(person)
    if not waiting:
        raise TrainingError(
            f"{file}: nobody is to be labelled; it needs boxes of people (category {PERSON}) without keypoints, "
            f"{options.min_side:g} pixels high or wide (--min-side)"
        )
    network = load_pose_network(
        options.weights, device=options.device, precision=options.precision, flip=True, batch=options.batch
    )
    check_precision(options.precision, {"the pose network": network.number_format})
    people: list[dict[str, Any]] = []
    for done, (persons, poses) in enumerate(_estimate(network, options, names, waiting), start=1):
        people += _annotations(persons, poses, options, first_id=len(people) + 1)
        if progress is not None:
            progress(min(done * _IMAGES_AT_ONCE, len(waiting)), len(waiting))
    if not people:
        raise TrainingError(
            f"{file}: the network is sure of nobody; lower --min-score or --min-keypoints, or train it longer"
        )
    used = {person["image_id"] for person in people}
    settings = {"min_score": options.min_score, "max_uncertainty": options.max_uncertainty}
    labels = {
        "info": {"description": f"pseudo labels by {Path(options.weights).name} of the people in {file.name}"}
        | settings,
        "images": [image for image in content["images"] if image["id"] in used],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(KEYPOINT_NAMES)}],
    }
    write_json(options.out, labels)
    total = sum(map(len, waiting.values()))
    return PseudoLabels(total, len(people), sum(person["num_keypoints"] for person in people))


def _estimate(
    network: PoseNetwork, options: PseudoLabelOptions, names: dict[int, str], waiting: dict[int, list[dict[str, Any]]]
) -> Iterator[tuple[list[dict[str, Any]], Poses]]:
    """The people of a few images at a time, and their poses in the same order."""
    numbers = list(waiting)
    for start in range(0, len(numbers), _IMAGES_AT_ONCE):
        some = numbers[start : start + _IMAGES_AT_ONCE]
        images = [read_image(options.data / names[number]) for number in some]
        found = []
        for number in some:
            boxes = [box_of(person, options.boxes_annotations) for person in waiting[number]]
            found.append(Detections(np.array(boxes, np.float32), np.ones(len(boxes), np.float32)))
        persons = [person for number in some for person in waiting[number]]
        yield persons, network(crop_persons(images, found, network.input_size, network.preprocessing))


def _annotations(
    persons: list[dict[str, Any]], poses: Poses, options: PseudoLabelOptions, first_id: int
) -> list[dict[str, Any]]:
    sure = believed(poses, options)
    table = np.concatenate([poses.keypoints_xy.round(1), np.full_like(poses.keypoint_scores, 2)[..., None]], axis=2)
    table[~sure] = 0
    rows = np.flatnonzero(sure.sum(axis=1) >= options.min_keypoints)
    labelled = []
    for number, row in enumerate(rows.tolist(), start=first_id):
        person = persons[row]
        box = person["bbox"]
        labelled.append(
            {
                "id": number,
                "image_id": person["image_id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": person.get("area") or box[2] * box[3] / 2,
                "num_keypoints": int(sure[row].sum()),
                "keypoints": table[row].flatten().astype(float).round(1).tolist(),
                "score": round(float(poses.scores[row]), 4),
            }
        )
    return labelled
