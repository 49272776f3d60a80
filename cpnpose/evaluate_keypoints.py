"""The figures of COCO's keypoint task: AP and AR by pycocotools, PCK per keypoint, mean OKS."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.errors import InputError
from cpnpose.pose.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS
from cpnpose.pose.oks import oks
from cpnpose.pose.types import FloatArray, Poses
from cpnpose.training.annotations import box_of, file_names, image_of, labelled_keypoints, read_annotations

PCK_ALPHA = 0.1
"""A keypoint is right within this share of the longer side of the person's box."""
_STATS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


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
        AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl. All 0 where nothing was found; -1, as COCO has it, where
        nobody of that size is labelled.

    Raises:
        InputError: pycocotools is not installed, or the annotation file is none.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("evaluation needs pycocotools: pip install 'cpnpose[train]'") from error
    if not results:
        complete_annotations(annotations)
        return dict.fromkeys(_STATS, 0.0)
    truth = COCO()
    truth.dataset = complete_annotations(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "keypoints")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {
        name: round(100 * float(value), 2) if value >= 0 else -1.0
        for name, value in zip(_STATS, run.stats, strict=True)
    }


def complete_annotations(path: Path) -> dict[str, Any]:
    """An annotation file with all that pycocotools asks of it: what can be told from the rest is filled in.

    People with keypoints are of category 1 whatever the file calls them, as predictions are; who has none counts where
    people with keypoints have the same category. Annotations are numbered from 1: pycocotools takes 0 as "no match".

    Raises:
        InputError: a person has keypoints but no ``area``, which OKS needs, or no box, or another fault (see
            :mod:`cpnpose.training.annotations`).
    """
    content = read_annotations(path)
    names = file_names(content, path)
    people: list[dict[str, Any]] = []
    labelled_ones = (person for person in content["annotations"] if labelled_keypoints(person, path))
    categories = {None, *(person.get("category_id") for person in labelled_ones)}
    for person in content["annotations"]:
        image_of(person, names, path)
        x1, y1, x2, y2 = box_of(person, path)
        area = person.get("area")
        known = isinstance(area, int | float) and area > 0
        labelled = labelled_keypoints(person, path)
        if labelled is not None and not known:
            raise InputError(
                f"{path}: annotation {person.get('id')!r} has no 'area' above 0, which OKS needs; give the area of the "
                "person's mask in square pixels, or half of the box's where there is none"
            )
        if labelled is None and person.get("category_id") not in categories:
            continue
        keypoints = labelled or [0] * (3 * NUM_KEYPOINTS)
        people.append(
            {
                "id": len(people) + 1,
                "image_id": person["image_id"],
                "category_id": 1,
                "iscrowd": int(bool(person.get("iscrowd"))),
                "bbox": person["bbox"],
                "area": area if known else (x2 - x1) * (y2 - y1),
                "keypoints": keypoints,
                "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
            }
        )
    return {
        "info": {},
        "images": content["images"],
        "annotations": people,
        "categories": [{"id": 1, "name": "person"}],
    }


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
    for person in complete_annotations(annotations)["annotations"]:
        truth = np.array(person["keypoints"], np.float32).reshape(-1, 3)
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
