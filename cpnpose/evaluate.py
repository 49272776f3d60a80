"""A pose network over annotated images, measured as the field does: ``cpnpose evaluate``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cpnpose.errors import InputError, OptionError
from cpnpose.evaluate_keypoints import PCK_ALPHA, coco_results, keypoint_errors, keypoint_metrics
from cpnpose.media.images import read_image
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.detect import Detector
from cpnpose.pipeline.detection_file import FileDetector, load_boxes
from cpnpose.pipeline.device import check_precision
from cpnpose.pipeline.estimate import load_pose_network
from cpnpose.pipeline.load_detector import detector_names, load_detector, number_formats
from cpnpose.pose.decode import Decoding
from cpnpose.pose.oks import oks
from cpnpose.pose.types import Detections, ImageArray, PersonCrops, Poses, Preprocessing
from cpnpose.training.annotations import PersonRecords, check_image_folder, file_names, read_annotations, read_people
from cpnpose.training.distributed import check_one_process
from cpnpose.whole_file import whole_file

__all__ = [
    "Evaluation",
    "EvaluationOptions",
    "coco_results",
    "evaluate_pose",
    "keypoint_errors",
    "keypoint_metrics",
    "person_crops",
    "write_json",
]


_OKS_NMS = 0.9


def person_crops(records: PersonRecords, input_size: tuple[int, int], preprocessing: Preprocessing) -> PersonCrops:
    """Crops of annotated people by their annotated boxes (score 1), one row for each record, in the same order."""
    parts = []
    image: ImageArray | None = None
    for row, box in enumerate(records.boxes_xyxy):
        if image is None or records.image_paths[row] != records.image_paths[row - 1]:
            image = records.read_image(row)
        found = Detections(box[None], np.ones(1, np.float32))
        parts.append(crop_persons([image], [found], input_size, preprocessing))
    return PersonCrops(
        pixels=np.concatenate([part.pixels for part in parts]),
        affines=np.concatenate([part.affines for part in parts]),
        frame_indices=np.arange(len(records), dtype=np.int64),
        boxes_xyxy=records.boxes_xyxy,
        scores=np.ones(len(records), np.float32),
    )


@dataclass(frozen=True)
class EvaluationOptions:
    """What to measure, and by which protocol."""

    annotations: Path
    data: Path
    boxes: str = "gt"
    """``gt`` (annotated boxes, score 1), ``detector``, or the path of a COCO detections file."""
    weights: str = "default"
    detector: str = "default"
    detector_weights: Path | None = None
    """A weights file in the place of the named detector's."""
    flip: bool = True
    fast: bool = False
    decoding: Decoding | None = None
    """None takes the one that the weights name."""
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    box_score: float = 0.05
    """Detected boxes below it are left out."""
    oks_nms: float | None = None
    """Of two poses in one image that are more alike than this OKS, the weaker is dropped (detected boxes only); None is
    0.9."""

    def __post_init__(self) -> None:
        if self.boxes == "detector" and self.detector == "none":
            raise OptionError(
                "--boxes detector needs a detector, and --detector none is none; use --boxes gt, or name one of: "
                f"{', '.join(detector_names())}"
            )
        if self.boxes != "detector":
            for name, default in (("detector", "default"), ("detector_weights", None)):
                if getattr(self, name) != default:
                    raise OptionError(
                        f"--{name.replace('_', '-')} has no effect with --boxes {self.boxes}; leave it out, or use "
                        "--boxes detector"
                    )
        if self.boxes == "gt" and self.oks_nms is not None:
            raise OptionError("--oks-nms has no effect with --boxes gt: its poses are all kept; leave it out")


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    metrics: dict[str, float]
    """See :func:`keypoint_metrics`."""
    report: dict[str, Any]
    """The metrics, :func:`keypoint_errors`, and ``protocol``."""
    results: list[dict[str, Any]]
    """COCO results."""
    notes: list[str] = field(default_factory=list)
    """What the user should know of the options."""


def evaluate_pose(options: EvaluationOptions) -> Evaluation:
    """Run a pose network over annotated images and measure it.

    Raises:
        OptionError: it was started as several processes, or with an option that has no effect.
        InputError: annotations, images or boxes cannot be read.
        WeightsError: the weights cannot be loaded.
    """
    check_one_process("evaluate")
    network = load_pose_network(
        options.weights,
        device=options.device,
        precision=options.precision,
        flip=options.flip,
        fast=options.fast,
        batch=options.batch,
        decoding=options.decoding,
    )
    if options.boxes == "gt":
        notes = check_precision(options.precision, number_formats(network, None))
        records = read_people([options.annotations], options.data)
        poses = network(person_crops(records, network.input_size, network.preprocessing))
        results = coco_results(poses, records.image_ids)
    else:
        results = []
        check_image_folder(options.data)
        names = file_names(read_annotations(options.annotations), options.annotations)
        find = _box_source(options, names)
        notes = check_precision(options.precision, number_formats(network, find))
        for number, name in names.items():
            try:
                pixels = read_image(options.data / name)
            except InputError as error:
                raise InputError(f"{error} (wanted by {options.annotations})") from error
            crops = crop_persons([pixels], find([pixels], [number]), network.input_size, network.preprocessing)
            poses = _without_doubles(network(crops), _OKS_NMS if options.oks_nms is None else options.oks_nms)
            results += coco_results(poses, np.full(len(poses), number, np.int64))
    metrics = keypoint_metrics(options.annotations, results)
    protocol = {
        "weights": network.metadata.name if network.metadata and network.metadata.name else str(options.weights),
        "size": f"{network.input_size[0]}x{network.input_size[1]}",
        "annotations": options.annotations.name,
        "boxes": str(options.detector_weights or options.detector) if options.boxes == "detector" else options.boxes,
        "flip": options.flip,
        "decoding": network.decoding,
        "map": "GlobalNet" if options.fast else "RefineNet",
        "precision": network.number_format,
        "pck_alpha": PCK_ALPHA,
    }
    report = {**metrics, **keypoint_errors(options.annotations, results), "protocol": protocol}
    return Evaluation(metrics, report, results, notes)


def _box_source(options: EvaluationOptions, names: dict[int, str]) -> Detector:
    if options.boxes == "detector":
        return load_detector(
            options.detector,
            weights=options.detector_weights,
            device=options.device,
            precision=options.precision,
            score=options.box_score,
        )
    by_id = load_boxes(options.boxes, score=options.box_score)
    if by_id.people.keys() & names.keys():
        return by_id
    # Files that know images by name: annotation files, detections whose image_id is a file name.
    by_place = load_boxes(options.boxes, list(names.values()), score=options.box_score)
    if not by_place.people:
        raise InputError(f"{options.boxes}: no box of any image of {options.annotations}; its image ids are others")
    return FileDetector({number: by_place.people[i] for i, number in enumerate(names) if i in by_place.people})


def _without_doubles(poses: Poses, most: float) -> Poses:
    """Greedy non-maximum suppression by OKS, on all keypoints, with the box's area."""
    if len(poses) < 2 or most >= 1:
        return poses
    sides = poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]
    everywhere = np.ones(poses.keypoint_scores.shape, np.bool_)
    alike = oks(poses.keypoints_xy, poses.keypoints_xy, everywhere, sides.prod(1) / 2)
    kept: list[int] = []
    for row in np.argsort(-poses.scores, kind="stable"):
        if not (alike[row, kept] > most).any():
            kept.append(int(row))
    return poses.select(kept)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is whole or not there. Raises :class:`OutputError`."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
