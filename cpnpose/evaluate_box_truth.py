"""The people of a COCO file with boxes, read once for all figures about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpnpose.errors import InputError
from cpnpose.training.annotations import box_of, file_names, read_annotations

PERSON = 1
"""Category of people in COCO."""


@dataclass(frozen=True)
class BoxTruth:
    """What the figures need of an annotation file."""

    file: Path
    images: list[dict[str, Any]]
    """``id`` (int), ``file_name`` and, where the file tells them, ``width`` and ``height``."""
    people: list[dict[str, Any]]
    """COCO annotations of category person with ``id`` (from 1, as 0 would count as "no match" in pycocotools),
    ``image_id``, ``bbox`` (x, y, width, height in pixels), ``area`` and ``iscrowd``."""


def read_truth(annotations: Path) -> BoxTruth:
    """The people of a COCO file; boxes without a category are of persons, too.

    Raises:
        InputError: it cannot be read, an image has no whole number as its id or no name, a person no box, or there is
            nobody.
    """
    data = read_annotations(annotations)
    names = file_names(data, annotations)
    people: list[dict[str, Any]] = []
    for entry in data["annotations"]:
        if entry.get("category_id", PERSON) == PERSON:
            box_of(entry, annotations)
            box, area = entry["bbox"], entry.get("area")
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": entry.get("image_id"),
                    "category_id": PERSON,
                    "bbox": box,
                    "area": area if isinstance(area, int | float) else box[2] * box[3],
                    "iscrowd": int(bool(entry.get("iscrowd"))),
                }
            )
    if not any(person["image_id"] in names for person in people):
        raise InputError(
            f"{annotations}: holds no box of a person (category {PERSON}) on one of its images; check the file"
        )
    known = ("id", "file_name", "width", "height")
    images = [{name: image[name] for name in known if name in image} for image in data["images"]]
    return BoxTruth(annotations, images, people)


def check_sizes(truth: BoxTruth) -> None:
    """Raise an InputError where an image has no size, which the heights of its people are measured by."""
    for image in truth.images:
        if not all(isinstance(image.get(side), int | float) and image[side] > 0 for side in ("width", "height")):
            raise InputError(
                f"{truth.file}: image {image['id']} has no 'width' and 'height' above 0; give its size in pixels"
            )
