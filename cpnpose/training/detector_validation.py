"""Looking at the validation images in the course of a detector training run."""

from __future__ import annotations

import copy

import torch
from torch import nn

from cpnpose.evaluate_box_truth import BoxTruth
from cpnpose.evaluate_boxes import chosen_images, detect_all
from cpnpose.models.detect_batch import DetectorNetwork
from cpnpose.models.detector import Detector
from cpnpose.pose.types import Detections, ImageArray
from cpnpose.training.detector_data import read_pixels, read_samples
from cpnpose.training.detector_options import DetectorTraining
from cpnpose.training.detector_picture import boxes_picture

_RAW_SCORE = 0.02


def find_in_validation(
    model: nn.Module,
    options: DetectorTraining,
    truth: BoxTruth,
    device: torch.device,
    dtype: torch.dtype,
    limit: int | None,
) -> dict[int, Detections]:
    """Boxes of all images of ``truth``, or ``limit`` of them, by image id; down to a score that suits metrics.

    The model is copied and stays as it is.
    """
    copied = copy.deepcopy(model)
    assert isinstance(copied, Detector)
    network = DetectorNetwork(copied, device, dtype)

    def detect(images: list[ImageArray]) -> list[Detections]:
        return [Detections(*people) for people in network.detect(images, score=_RAW_SCORE, nms=options.config.nms)]

    return detect_all(detect, truth, options.data, limit=limit)


def draw_validation(options: DetectorTraining, truth: BoxTruth, found: dict[int, Detections]) -> None:
    """Write ``boxes.png``: 16 of the images of ``found`` with predicted and true boxes."""
    samples = {sample.image_id: sample for sample in read_samples(truth.file, options.data)}
    seen = [int(entry["id"]) for entry in truth.images if int(entry["id"]) in found]
    ids = chosen_images(seen, 16)
    boxes_picture(
        options.out / "boxes.png",
        [read_pixels(samples[i].path) for i in ids],
        [found[i] for i in ids],
        [samples[i].boxes_xyxy for i in ids],
        score=options.config.score,
    )
