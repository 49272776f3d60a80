"""People in images: a detector, or the whole image as one person's box. Boxes of a file are in ``detection_file``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from cpnpose.pipeline.batches import HalvingBatch
from cpnpose.pipeline.device import one_at_a_time
from cpnpose.pose.types import Detections, FloatArray, Picture


class Detector(Protocol):
    """What the pipeline asks of whatever finds people."""

    def __call__(self, images: Sequence[Picture], indices: Sequence[int] | None = None) -> list[Detections]:
        """People of each image (H, W, 3) uint8 RGB; ``indices`` are the images' numbers in the input."""
        ...


class DetectionNetwork(Protocol):
    """What :class:`PersonDetector` asks of a network: see ``models/detect_batch.py`` and ``official_detector.py``."""

    device: torch.device

    @property
    def number_format(self) -> str:
        """What it computes in, such as ``float32`` or ``int8``."""
        ...

    def detect(
        self, images: Sequence[Picture], *, score: float, nms: float, max_people: int
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Boxes (n, 4) xyxy in image pixels and scores (n,), best first, for images of one shape."""
        ...


class PersonDetector:
    """A network that finds people, in batches of images of one shape. May be called from several threads.

    Args:
        network: gives boxes for a batch.
        score: people below it are left out.
        track_score: from this score on somebody new is followed in a video; None is ``score``.
        nms: IoU above which the weaker of two boxes is left out.
        max_people: per image.
        batch: most images in one go; None leaves the choice to the device.
        name, file: which weights these are, and where they lie, for records; None where they are of no file.
    """

    def __init__(
        self,
        network: DetectionNetwork,
        *,
        score: float = 0.5,
        track_score: float | None = None,
        nms: float = 0.5,
        max_people: int = 100,
        batch: int | None = None,
        name: str = "",
        file: Path | None = None,
    ) -> None:
        self.network = network
        self.score, self.nms, self.max_people, self.name = score, nms, max_people, name
        self.file = file
        self.track_score = score if track_score is None else track_score
        self._batch = HalvingBatch(batch or (4 if network.device.type == "cpu" else 16), network.device)

    @property
    def batch(self) -> int:
        """Most images in one go."""
        return self._batch.size

    def with_score(self, score: float) -> PersonDetector:
        """The same detector with another threshold; people are followed from the same score on."""
        return PersonDetector(
            self.network, score=score, track_score=self.track_score, nms=self.nms, max_people=self.max_people,
            batch=self.batch, name=self.name, file=self.file,
        )  # fmt: skip

    def __call__(self, images: Sequence[Picture], indices: Sequence[int] | None = None) -> list[Detections]:
        """People of each image: boxes (N, 4) xyxy in its pixels, at most ``max_people``, best first.

        Out of memory, the batch is halved for this and all later calls.

        Raises:
            CpnposeError: not even a single image fits into memory.
        """
        found = [Detections.empty()] * len(images)
        for rows in _rows_by_shape(images):
            for row, people in zip(rows, self._detect_all([images[row] for row in rows]), strict=True):
                found[row] = people
        return found

    def _detect_all(self, images: Sequence[Picture]) -> list[Detections]:
        height, width = images[0].shape[:2]
        with one_at_a_time(self.network.device):
            parts = self._batch.map(
                lambda part: self._detect(images[part]),
                len(images),
                f"to look for people in a single {width}x{height} image",
            )
        return [people for part in parts for people in part]

    def _detect(self, images: Sequence[Picture]) -> list[Detections]:
        height, width = images[0].shape[:2]
        limit = np.array([width, height] * 2, np.float32)
        results = self.network.detect(images, score=self.score, nms=self.nms, max_people=self.max_people)
        return [Detections(np.clip(boxes, 0, limit), scores) for boxes, scores in results]


class WholeImageDetector:
    """One person per image, whose box is the whole image."""

    def __call__(self, images: Sequence[Picture], indices: Sequence[int] | None = None) -> list[Detections]:
        """A box (0, 0, width, height) of score 1 for each image."""
        boxes = (np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32) for image in images)
        return [Detections(box, np.ones(1, np.float32)) for box in boxes]


def _rows_by_shape(images: Sequence[Picture]) -> list[list[int]]:
    """Rows of images of one shape each: a batch of several shapes would be padded, and its boxes would differ."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(image.shape, []).append(row)
    return list(groups.values())
