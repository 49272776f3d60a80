"""Boxes of people from a COCO detections file, in the place of a detector."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from cpnpose.errors import InputError
from cpnpose.pose.types import FARTHEST, Detections, Picture

_PERSON = 1


class FileDetector:
    """Returns the boxes that stand in a file; see :func:`load_boxes`.

    Args:
        people: for each number of an image in the input, its people. Images that are not in it have none.
    """

    def __init__(self, people: Mapping[int, Detections]) -> None:
        self.people = people

    def __call__(self, images: Sequence[Picture], indices: Sequence[int] | None = None) -> list[Detections]:
        """The people of the images with these numbers; without numbers, of 0, 1, 2, ..."""
        return [self.people.get(index, Detections.empty()) for index in indices or range(len(images))]


def load_boxes(
    path: str | Path, names: Sequence[str] | None = None, *, score: float = 0.0, max_people: int = 100
) -> FileDetector:
    """Read a COCO detections file: ``[{"image_id", "category_id": 1, "bbox": [x, y, width, height], "score"}, ...]``.

    An annotations file (``{"images": [...], "annotations": [...]}``) is read as well; its boxes have score 1.

    Args:
        path: the JSON file.
        names: file names of the input's images in order; ``image_id`` is then a file's name, with its last folders
            where those tell it from others of that name, its stem, or that stem as a number. Without names (a video)
            it is the frame's number, from 0.
        score: people below it are left out.
        max_people: per image, the best ones.

    Raises:
        InputError: the file cannot be read or is no such file.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        rows, titles = (data, {}) if isinstance(data, list) else (data["annotations"], _titles(data["images"]))
        by_image: dict[Any, list[tuple[float, list[float]]]] = {}
        for row in rows:
            value = float(row.get("score", 1.0))
            if row.get("category_id", _PERSON) == _PERSON and not value < score:
                x, y, width, height = (float(number) for number in row["bbox"])
                key = titles.get(row["image_id"], row["image_id"])
                if not all(abs(number) < FARTHEST for number in (value, x, y, width, height)):
                    raise ValueError(f"image {key!r} has the bbox {row['bbox']} with the score {value}")
                by_image.setdefault(key, []).append((value, [x, y, x + width, y + height]))
        by_image |= {short: by_image[title] for short, title in _short(titles.values()).items() if title in by_image}
    except OSError as error:
        raise InputError(f"{path}: cannot read the boxes ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is no COCO detections file ({type(error).__name__}: {error}); it should hold "
            '[{"image_id": ..., "category_id": 1, "bbox": [x, y, width, height], "score": ...}, ...]'
        ) from error
    if names is None:
        return FileDetector({int(key): _best(found, max_people) for key, found in by_image.items() if _is_whole(key)})
    people = {}
    for index, name in enumerate(names):
        keys = (key for key in _keys(name) if key in by_image)
        if (key := next(keys, None)) is not None:
            people[index] = _best(by_image[key], max_people)
    return FileDetector(people)


def _titles(images: list[dict[str, Any]]) -> dict[Any, str]:
    return {image["id"]: PurePath(image["file_name"]).as_posix() for image in images}


def _short(titles: Iterable[str]) -> dict[str, str]:
    """Names without their folders, where no two images share one, to the names with them."""
    shared: dict[str, set[str]] = {}
    for title in titles:
        shared.setdefault(PurePath(title).name, set()).add(title)
    return {short: title for short, (title, *others) in shared.items() if not others}


def _keys(name: str) -> list[Any]:
    path = PurePath(name)
    numbers = [int(path.stem), str(int(path.stem))] if path.stem.isdecimal() else []
    endings = ["/".join(path.parts[start:]) for start in range(len(path.parts))]
    return [name, *endings, path.stem, *numbers]


def _is_whole(key: Any) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and key.isdecimal())


def _best(found: list[tuple[float, list[float]]], most: int) -> Detections:
    found = sorted(found, key=lambda item: -item[0])[:most]
    boxes = np.array([box for _, box in found], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([value for value, _ in found], np.float32))
