"""Accuracy as the field measures it: COCO keypoint AP by pycocotools, PCK per keypoint, mean OKS."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.errors import InputError
from cpnpose.media.images import read_image
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.detect import Detector
from cpnpose.pipeline.detection_file import load_boxes
from cpnpose.pipeline.estimate import load_pose_network
from cpnpose.pipeline.load_detector import load_detector
from cpnpose.pose.heatmaps import Decoding
from cpnpose.pose.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS
from cpnpose.pose.oks import oks
from cpnpose.pose.types import Detections, FloatArray, ImageArray, PersonCrops, Poses, Preprocessing
from cpnpose.training.dataset import PersonRecords, read_annotations, read_people

PCK_ALPHA = 0.1
_STATS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


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


def coco_results(poses: Poses, image_ids: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """The results file of COCO's keypoint task.

    Args:
        poses: N people of any images.
        image_ids: (N,) the image of each.
    """
    numbers = np.concatenate([poses.keypoints_xy, poses.keypoint_scores[..., None]], axis=2).reshape(len(poses), -1)
    return [
        {
            "image_id": int(image),
            "category_id": 1,
            "keypoints": [round(float(value), 2) for value in row],
            "score": round(float(score), 5),
        }
        for image, row, score in zip(image_ids, numbers, poses.scores, strict=True)
    ]


def keypoint_metrics(annotations: Path, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """COCO keypoint metrics of ``results`` on all images of ``annotations``, in percent.

    Returns:
        AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl. All 0 where nothing was found.

    Raises:
        InputError: pycocotools is not installed, or the annotation file is none.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("evaluation needs pycocotools: pip install 'cpnpose[train]'") from error
    if not results:
        return dict.fromkeys(_STATS, 0.0)
    content: dict[str, Any] = dict(read_annotations(annotations))
    content.setdefault("info", {})
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(list(results)), "keypoints")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: round(100 * float(value), 2) for name, value in zip(_STATS, run.stats, strict=True)}


def keypoint_errors(annotations: Path, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How well each keypoint is placed, over the labelled people for whom a prediction exists.

    Each labelled person is compared with the prediction of the highest OKS in the image. PCK counts a labelled keypoint
    as right within ``PCK_ALPHA`` of the longer side of the person's box (Yang and Ramanan, TPAMI 2013).

    Returns:
        ``pck`` by keypoint name and ``mean`` in percent, ``mean_oks_error`` = mean of 1 - OKS, ``people`` compared.
    """
    by_image: dict[int, list[FloatArray]] = {}
    for result in results:
        points = np.array(result["keypoints"], np.float32).reshape(NUM_KEYPOINTS, 3)
        by_image.setdefault(result["image_id"], []).append(points[:, :2])
    right, labelled, errors = np.zeros(NUM_KEYPOINTS), np.zeros(NUM_KEYPOINTS), []
    for person in read_annotations(annotations)["annotations"]:
        truth = np.array(person.get("keypoints", []), np.float32).reshape(-1, 3)
        predictions = by_image.get(person["image_id"])
        if person.get("iscrowd") or not (truth[:, 2:] > 0).any() or predictions is None:
            continue
        seen = truth[:, 2] > 0
        stacked = np.stack(predictions)
        area = np.array([person["area"]], np.float32)
        similarity = oks(stacked, truth[None, :, :2], seen[None], area)[:, 0]
        best = int(similarity.argmax())
        distance = np.linalg.norm(stacked[best] - truth[:, :2], axis=1)
        box: Any = person["bbox"]
        right += seen & (distance <= PCK_ALPHA * max(box[2], box[3]))
        labelled += seen
        errors.append(1 - float(similarity[best]))
    share = 100 * right / np.maximum(labelled, 1)
    pck = {name: round(float(value), 1) for name, value in zip(KEYPOINT_NAMES, share, strict=True)}
    pck["mean"] = round(float(100 * right.sum() / max(1, labelled.sum())), 1)
    return {"pck": pck, "mean_oks_error": round(float(np.mean(errors)), 4) if errors else None, "people": len(errors)}


@dataclass(frozen=True)
class EvaluationOptions:
    """What to measure, and by which protocol."""

    annotations: Path
    data: Path
    boxes: str = "gt"
    """``gt`` (annotated boxes, score 1), ``detector``, or the path of a COCO detections file."""
    weights: str = "default"
    detector: str = "default"
    flip: bool = True
    fast: bool = False
    decoding: Decoding | None = None
    """None takes the one that the weights name."""
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    box_score: float = 0.05
    """Detected boxes below it are left out."""
    oks_nms: float = 0.9
    """Of two poses in one image that are more alike than this OKS, the weaker is dropped (detected boxes only)."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    metrics: dict[str, float]
    """See :func:`keypoint_metrics`."""
    report: dict[str, Any]
    """The metrics, :func:`keypoint_errors`, and ``protocol``."""
    results: list[dict[str, Any]]
    """COCO results."""


def evaluate_pose(options: EvaluationOptions) -> Evaluation:
    """Run a pose network over annotated images and measure it.

    Raises:
        InputError: annotations, images or boxes cannot be read.
        WeightsError: the weights cannot be loaded.
    """
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
        records = read_people([options.annotations], options.data)
        poses = network(person_crops(records, network.input_size, network.preprocessing))
        results = coco_results(poses, records.image_ids)
    else:
        results = []
        find = _box_source(options)
        for image in read_annotations(options.annotations)["images"]:
            number: Any = image["id"]
            pixels = read_image(options.data / str(image["file_name"]))
            crops = crop_persons([pixels], find([pixels], [number]), network.input_size, network.preprocessing)
            poses = _without_doubles(network(crops), options.oks_nms)
            results += coco_results(poses, np.full(len(poses), number, np.int64))
    metrics = keypoint_metrics(options.annotations, results)
    protocol = {
        "weights": network.metadata.name if network.metadata and network.metadata.name else str(options.weights),
        "size": f"{network.input_size[0]}x{network.input_size[1]}",
        "annotations": options.annotations.name,
        "boxes": options.detector if options.boxes == "detector" else options.boxes,
        "flip": options.flip,
        "decoding": network.decoding,
        "map": "GlobalNet" if options.fast else "RefineNet",
        "precision": str(network.dtype).removeprefix("torch."),
        "pck_alpha": PCK_ALPHA,
    }
    report = {**metrics, **keypoint_errors(options.annotations, results), "protocol": protocol}
    return Evaluation(metrics, report, results)


def _box_source(options: EvaluationOptions) -> Detector:
    if options.boxes == "detector":
        return load_detector(
            options.detector, device=options.device, precision=options.precision, score=options.box_score
        )
    return load_boxes(options.boxes, score=options.box_score)


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
    """Write JSON so that the file is whole or not there."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(path)
