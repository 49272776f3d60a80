"""How well a detector finds people: COCO's box metrics and the thresholds that suit it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from cpnpose.errors import InputError
from cpnpose.evaluate_box_truth import PERSON, BoxTruth
from cpnpose.pose.types import Detections, FloatArray, ImageArray, IntArray
from cpnpose.training.detector_data import read_pixels

_BATCH = 4
_HEIGHTS = (32, 40, 64, 128, 256)

Detect = Callable[[list[ImageArray]], list[Detections]]
"""Images of one shape (H, W, 3) uint8 RGB to the boxes in each."""


def detect_all(detect: Detect, truth: BoxTruth, images: Path, *, limit: int | None = None) -> dict[int, Detections]:
    """Run a detector over annotated images; people by image id.

    Args:
        detect: called with up to four images of the same shape.
        images: folder that the images' names start from.
        limit: only as many images, evenly chosen.

    Raises:
        InputError: an image cannot be read.
    """
    entries = chosen_images(truth.images, limit)
    by_shape: dict[tuple[int, ...], list[tuple[int, ImageArray]]] = {}
    found: dict[int, Detections] = {}

    def run(waiting: list[tuple[int, ImageArray]]) -> None:
        for (image_id, _), people in zip(waiting, detect([image for _, image in waiting]), strict=True):
            found[image_id] = people
        waiting.clear()

    for entry in entries:
        image = read_pixels(images / entry["file_name"])
        waiting = by_shape.setdefault(image.shape, [])
        waiting.append((int(entry["id"]), image))
        if len(waiting) == _BATCH:
            run(waiting)
    for waiting in by_shape.values():
        if waiting:
            run(waiting)
    return found


def chosen_images(entries: Sequence[Any], limit: int | None) -> list[Any]:
    """All entries, or ``limit`` of them, evenly spread."""
    if limit is None or limit >= len(entries):
        return list(entries)
    return [entries[int(i)] for i in np.linspace(0, len(entries) - 1, limit).round()]


def box_metrics(truth: BoxTruth, found: Mapping[int, Detections]) -> dict[str, float]:
    """COCO's box metrics (pycocotools, 101 recall points) on the images of ``found``, in percent.

    ``AP`` (mean over IoU 0.50 to 0.95, at most 100 boxes an image), ``AP50``, ``AP75``, ``AP50_above_32px`` (people
    whose ``area`` is more than 32x32 pixels, as COCO's medium and large together) and ``AR10`` (mean recall over the
    IoUs with 10 boxes an image). Persons without keypoints count; ``iscrowd`` regions are ignored.

    Raises:
        InputError: pycocotools is missing.
    """
    names = ("AP", "AP50", "AP75", "AP50_above_32px", "AR10")
    if not any(len(people) for people in found.values()):
        return dict.fromkeys(names, 0.0)
    evaluation = _coco_evaluation(truth, found)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (IoU, recall, category, area, maxDets)
    recall = evaluation.eval["recall"]  # (IoU, category, area, maxDets)
    values = (
        precision[:, :, 0, 0, 2],
        precision[0, :, 0, 0, 2],
        precision[5, :, 0, 0, 2],
        precision[0, :, 0, 1, 2],
        recall[:, 0, 0, 1],
    )
    return {name: _percent(value) for name, value in zip(names, values, strict=True)}


def _coco_evaluation(truth: BoxTruth, found: Mapping[int, Detections]) -> Any:
    """pycocotools' ``COCOeval`` of the boxes in the images of ``found``, matched but not accumulated; its areas are all
    and those above 32x32 pixels."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("box metrics need pycocotools: pip install 'cpnpose[train]'") from error
    results = [
        {"image_id": image_id, "category_id": PERSON, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image_id, people in found.items()
        for (x1, y1, x2, y2), score in zip(people.boxes_xyxy.tolist(), people.scores.tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": truth.images,
            "annotations": [dict(person) for person in truth.people],  # COCOeval writes into them
            "categories": [{"id": PERSON, "name": "person"}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results) if results else COCO(), "bbox")
        evaluation.params.imgIds = sorted(found)
        evaluation.params.catIds = [PERSON]
        evaluation.params.areaRng = [[0, 1e10], [32**2, 1e10]]
        evaluation.params.areaRngLbl = ["all", "above_32px"]
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
    return evaluation


def sweep_thresholds(
    truth: BoxTruth,
    raw: Mapping[int, Detections],
    nms_values: Sequence[float] = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
) -> dict[str, Any]:
    """Which score threshold and NMS suit a detector.

    Args:
        raw: its boxes with a low score threshold and next to no NMS.

    Returns:
        ``sweep`` (AP, AP50 and AR10 by NMS) and ``best``: ``nms``, the one of the best AP50, and there, of boxes
        against people above 32x32 pixels at IoU 0.5, ``score``, the threshold of the best F2, in which a missed
        person weighs more than a box too many, and ``track_score``, that of the best F1, in which both weigh the
        same; each with ``precision`` and ``recall`` in percent.
    """
    sweep = []
    for value in nms_values:
        metrics = box_metrics(truth, suppressed(raw, value))
        sweep.append({"nms": value, "AP": metrics["AP"], "AP50": metrics["AP50"], "AR10": metrics["AR10"]})
    best = max(sweep, key=lambda row: row["AP50"])
    ranked = _ranked(truth, suppressed(raw, best["nms"]))
    chosen = {"score": _best_score(*ranked, beta=2.0), "track_score": _best_score(*ranked, beta=1.0)}
    return {"best": {"nms": best["nms"], **chosen}, "sweep": sweep}


def suppressed(raw: Mapping[int, Detections], threshold: float) -> dict[int, Detections]:
    """The boxes that non-maximum suppression at an IoU of ``threshold`` leaves."""
    left = {}
    for image_id, people in raw.items():
        boxes, scores = torch.from_numpy(people.boxes_xyxy), torch.from_numpy(people.scores)
        rows = nms(boxes, scores, threshold).numpy()
        left[image_id] = Detections(people.boxes_xyxy[rows], people.scores[rows])
    return left


def _ranked(truth: BoxTruth, found: Mapping[int, Detections]) -> tuple[FloatArray, IntArray, int]:
    """The scores (n,) of the boxes that count, best first, how many of the boxes up to each are people (n,), and how
    many people there are. By COCO's rules at IoU 0.5: people and boxes up to 32x32 pixels, crowds and any number of
    boxes of which half lies in a crowd neither count nor harm."""
    evaluation = _coco_evaluation(truth, found)
    scores: list[float] = []
    hits: list[bool] = []
    people = 0
    for image in evaluation.evalImgs[len(evaluation.params.imgIds) :]:  # those of the second area
        if image is None:
            continue
        people += int((image["gtIgnore"] == 0).sum())
        counted = ~image["dtIgnore"][0]
        scores += np.array(image["dtScores"])[counted].tolist()
        hits += (image["dtMatches"][0][counted] > 0).tolist()
    order = np.argsort(-np.array(scores), kind="stable")
    return np.array(scores, np.float32)[order], np.cumsum(np.array(hits, bool)[order]), people


def _best_score(scores: FloatArray, true_positives: IntArray, people: int, *, beta: float) -> dict[str, float]:
    """``threshold``, ``precision`` and ``recall`` (percent) of the best F-measure in which recall weighs ``beta`` times
    as much as precision; the other arguments as :func:`_ranked` gives them."""
    if not len(scores) or not people:
        return {"threshold": 0.5, "precision": 0.0, "recall": 0.0}
    count = np.arange(1, len(scores) + 1)
    best = int(np.argmax((1 + beta**2) * true_positives / (count + beta**2 * people)))
    return {
        "threshold": round(float(scores[best]), 3),
        "precision": round(100 * float(true_positives[best] / count[best]), 1),
        "recall": round(100 * float(true_positives[best] / people), 1),
    }


def recall_by_height(truth: BoxTruth, found: Mapping[int, Detections], score: float) -> dict[str, dict[str, float]]:
    """How many people of each height have a box of at least ``score`` at IoU 0.5; crowds do not count.

    Heights are those of an image brought to as many pixels as 640x480 has. Returns, by range of heights in pixels, the
    ``recall`` in percent and the number of ``people``.
    """
    sure = {}
    for image_id, people in found.items():
        rows = people.scores >= score
        sure[image_id] = Detections(people.boxes_xyxy[rows], people.scores[rows])
    evaluation = _coco_evaluation(truth, sure)
    heights, hits = [], []
    for image in filter(None, evaluation.evalImgs[: len(evaluation.params.imgIds)]):
        entry = evaluation.cocoGt.imgs[image["image_id"]]
        scale = (640 * 480 / (entry["width"] * entry["height"])) ** 0.5
        counted = image["gtIgnore"] == 0
        heights += [evaluation.cocoGt.anns[i]["bbox"][3] * scale for i in np.array(image["gtIds"])[counted]]
        hits += (image["gtMatches"][0][counted] > 0).tolist()
    ranges = np.digitize(heights, _HEIGHTS)
    table = {}
    for number in range(len(_HEIGHTS) + 1):
        inside = np.array(hits, bool)[ranges == number]
        low, high = [0, *_HEIGHTS][number], [*map(str, _HEIGHTS), ""][number]
        if len(inside):
            table[f"{low}-{high}"] = {"recall": round(100 * float(inside.mean()), 1), "people": len(inside)}
    return table


def _percent(values: Any) -> float:
    known = values[values > -1]
    return round(100 * float(known.mean()), 2) if known.size else 0.0
