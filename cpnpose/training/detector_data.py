"""Images with the boxes of people, for training and evaluating detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cpnpose.errors import InputError, TrainingError
from cpnpose.pipeline.memory import available_memory
from cpnpose.pose.types import FloatArray, ImageArray
from cpnpose.training.annotations import read_annotations

_PERSON = 1
_KEPT_SHARE = 0.25
"""Of the free memory, for decoded images."""


@dataclass(frozen=True)
class BoxSample:
    """One image and its people."""

    path: Path
    image_id: int
    boxes_xyxy: FloatArray
    """(n, 4) float32, pixels of the image."""
    ignore_xyxy: FloatArray
    """(m, 4) float32: crowds. Nothing is said about what lies in them."""
    complete: bool
    """Whether every person of the image has a box."""


def read_samples(annotations: Path, images: Path, *, complete: bool = True) -> list[BoxSample]:
    """The images of a COCO file with the boxes of category person; those marked ``iscrowd`` become ignored regions.

    Args:
        annotations: JSON with ``images`` and ``annotations`` (``bbox`` as x, y, width, height).
        images: folder that the ``file_name`` entries are relative to.
        complete: False where people of these images may have no box.

    Raises:
        InputError: the file cannot be read or is not of that form.
        TrainingError: it holds no person.
    """
    data = read_annotations(annotations)
    people: dict[int, list[list[float]]] = {}
    crowds: dict[int, list[list[float]]] = {}
    try:
        for entry in data["annotations"]:
            if entry.get("category_id", _PERSON) == _PERSON:
                x, y, width, height = (float(value) for value in entry["bbox"])
                if width >= 1 and height >= 1:
                    group = crowds if entry.get("iscrowd", 0) else people
                    group.setdefault(int(entry["image_id"]), []).append([x, y, x + width, y + height])
        samples = [
            BoxSample(
                path=images / entry["file_name"],
                image_id=int(entry["id"]),
                boxes_xyxy=_boxes(people.get(int(entry["id"]), [])),
                ignore_xyxy=_boxes(crowds.get(int(entry["id"]), [])),
                complete=complete,
            )
            for entry in data["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{annotations}: not a COCO annotation file ({type(error).__name__}: {error})") from error
    if not people:
        raise TrainingError(f"{annotations}: holds no box of a person (category {_PERSON}); check the file")
    return samples


def check_images(samples: Sequence[BoxSample]) -> None:
    """Raise an InputError where an image is missing, at once and not when it is drawn."""
    missing = [sample.path for sample in samples if not sample.path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: there is no such image; {len(missing)} of {len(samples)} are missing, check --data"
        )


def read_pixels(path: Path) -> ImageArray:
    """An image file as uint8 RGB (H, W, 3).

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check --data") from error
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if len(raw) else None
    except cv2.error as error:  # more pixels than OpenCV reads
        raise InputError(f"{path}: cannot be decoded ({error.err}); remove it or make it smaller") from error
    if image is None:
        raise InputError(f"{path}: not an image or damaged; remove it or fetch it anew")
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


class BoxDataset:
    """Samples and their images, which stay in memory as uint8 once they are decoded, as many as there is room for; the
    others are decoded anew each time. (Which ones stay is decided once: they are drawn at random, so to drop the oldest
    for the newest would only move memory.)

    Args:
        kept_bytes: room for decoded images; None takes a quarter of the memory that is free.
    """

    def __init__(self, samples: Sequence[BoxSample], kept_bytes: int | None = None) -> None:
        self.samples = list(samples)
        self._pixels: dict[int, ImageArray] = {}
        self._room = int(available_memory() * _KEPT_SHARE) if kept_bytes is None else kept_bytes
        weights = np.array([2.0 if sample.complete else 1.0 for sample in self.samples])
        self._share = weights / weights.sum()

    def __len__(self) -> int:
        return len(self.samples)

    def pixels(self, index: int) -> ImageArray:
        """The image of a sample, uint8 RGB (H, W, 3); not to be written to. Errors as :func:`read_pixels`."""
        kept = self._pixels.get(index)
        if kept is not None:
            return kept
        pixels = read_pixels(self.samples[index].path)
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._pixels[index] = pixels
        return pixels

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Indices of ``count`` samples at random; images with complete boxes come twice as often as others."""
        return [int(index) for index in rng.choice(len(self.samples), size=count, p=self._share)]


def _boxes(rows: list[list[float]]) -> FloatArray:
    return np.asarray(rows, np.float32).reshape(-1, 4)
