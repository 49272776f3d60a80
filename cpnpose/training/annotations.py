"""People of COCO keypoint files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.errors import InputError, TrainingError
from cpnpose.media.images import read_image
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FloatArray, ImageArray


@dataclass(frozen=True)
class PersonRecords:
    """Annotated people, one row each."""

    image_paths: list[Path]
    image_ids: npt.NDArray[np.int64]
    """(N,)"""
    annotation_ids: npt.NDArray[np.int64]
    """(N,)"""
    boxes_xyxy: FloatArray
    """(N, 4) image pixels."""
    keypoints: FloatArray
    """(N, 17, 3): x, y in image pixels, v (0 not labelled, 1 labelled but hidden, 2 visible)."""
    sources: npt.NDArray[np.int64]
    """(N,) which annotation file a person comes from."""
    files: tuple[Path, ...] = ()
    """The annotation files."""

    def __len__(self) -> int:
        return len(self.image_paths)

    def name(self, row: int) -> str:
        """A person's name in messages: image file and annotation id."""
        return f"{self.image_paths[row].name}#{self.annotation_ids[row]}"

    def read_image(self, row: int) -> ImageArray:
        """The image that a person stands in.

        Raises:
            InputError: it is missing or damaged; the message names it and the annotation file that asks for it.
        """
        try:
            return read_image(self.image_paths[row])
        except InputError as error:
            if not self.files:
                raise
            raise InputError(f"{error} (wanted by {self.files[int(self.sources[row])]})") from error


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Parse a COCO annotation file.

    Raises:
        InputError: missing, no JSON, or without lists of objects ``images`` and ``annotations``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a COCO annotation file ({error}); check the path") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise InputError(f"{path}: no COCO annotation file; it needs the lists 'images' and 'annotations'")
    for name in ("images", "annotations"):
        if not all(isinstance(entry, dict) for entry in content[name]):
            raise InputError(f"{path}: no COCO annotation file; the entries of '{name}' must be objects")
    return content


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def file_names(content: dict[str, list[dict[str, Any]]], file: Path) -> dict[int, str]:
    """Image id to file name.

    Raises:
        InputError: an image has no whole number as its id, or no file name.
    """
    names: dict[int, str] = {}
    for image in content["images"]:
        number, name = image.get("id"), image.get("file_name")
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(f"{file}: image id {number!r} is not a whole number; COCO ids are, number the images")
        if not isinstance(name, str) or not name:
            raise InputError(f"{file}: image {number} has no 'file_name'")
        names[number] = name
    return names


def box_of(person: dict[str, Any], file: Path) -> list[float]:
    """The box of an annotation as xyxy.

    Raises:
        InputError: it has none.
    """
    box = person.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box):
        raise InputError(f"{file}: annotation {person.get('id')!r} has no 'bbox' of four numbers [x, y, width, height]")
    x, y, width, height = (float(value) for value in box)
    return [x, y, x + width, y + height]


def image_of(person: dict[str, Any], names: dict[int, str], file: Path) -> str:
    """The file name of an annotation's image.

    Raises:
        InputError: the file has no such image.
    """
    number = person.get("image_id")
    if not isinstance(number, int) or number not in names:
        raise InputError(f"{file}: annotation {person.get('id')!r} is of image {number!r}, which 'images' lacks")
    return names[number]


def labelled_keypoints(person: dict[str, Any], file: Path) -> list[float] | None:
    """The 51 numbers of a person's keypoints; None for crowds and where nothing is labelled.

    Raises:
        InputError: there is another number of them, or they are none.
    """
    points = person.get("keypoints")
    if person.get("iscrowd") or not isinstance(points, list) or not any(points[2::3]):
        return None
    if len(points) != 3 * NUM_KEYPOINTS:
        raise InputError(f"{file}: annotation {person.get('id')!r} has {len(points)} keypoint numbers instead of 51")
    if not _are_numbers(points):
        raise InputError(f"{file}: annotation {person.get('id')!r} has 'keypoints' that are no numbers")
    return points


def check_image_folder(folder: Path) -> None:
    """Raise an InputError where there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"--data {folder}: there is no such folder; give the one that the file names start from")


def read_people(files: Sequence[Path], image_folder: Path) -> PersonRecords:
    """All people with at least one labelled keypoint, crowds left out.

    Raises:
        InputError: a file is damaged, or the image folder is not there.
        TrainingError: there is nobody.
    """
    check_image_folder(image_folder)
    paths: list[Path] = []
    numbers: list[tuple[int, int, int]] = []
    boxes: list[list[float]] = []
    keypoints: list[list[float]] = []
    for source, file in enumerate(files):
        content = read_annotations(file)
        names = file_names(content, file)
        for row, person in enumerate(content["annotations"]):
            points = labelled_keypoints(person, file)
            if points is None:
                continue
            paths.append(image_folder / image_of(person, names, file))
            number = person.get("id", row)
            numbers.append((person["image_id"], number if isinstance(number, int) else row, source))
            boxes.append(box_of(person, file))
            keypoints.append(points)
    if not paths:
        raise TrainingError(
            f"no person with keypoints in {', '.join(map(str, files))}; pose training and evaluation need 'keypoints'"
        )
    table = np.array(numbers, np.int64)
    return PersonRecords(
        paths,
        table[:, 0],
        table[:, 1],
        np.array(boxes, np.float32),
        np.array(keypoints, np.float32).reshape(-1, NUM_KEYPOINTS, 3),
        table[:, 2],
        tuple(files),
    )
