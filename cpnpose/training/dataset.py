"""People of COCO keypoint files, decoded and cropped once into a memory-mapped cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpnpose.errors import InputError, TrainingError
from cpnpose.media.images import read_image
from cpnpose.pipeline.crop import warp
from cpnpose.pose.geometry import crop_affines, crop_boxes, transform_points
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FloatArray, Preprocessing

MARGIN = 1.5
"""A cached crop shows this many times the height and width of the crop that the network sees."""


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

    def __len__(self) -> int:
        return len(self.image_paths)


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Parse a COCO annotation file.

    Raises:
        InputError: missing, no JSON, or without ``images`` and ``annotations``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a COCO annotation file ({error})") from error
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        raise InputError(f"{path}: no COCO annotation file; it needs the lists 'images' and 'annotations'")
    return content


def read_people(files: Sequence[Path], image_folder: Path) -> PersonRecords:
    """All people with at least one labelled keypoint, crowds left out.

    Raises:
        TrainingError: there is nobody.
    """
    paths: list[Path] = []
    numbers: list[tuple[int, int, int]] = []
    boxes: list[list[float]] = []
    keypoints: list[list[float]] = []
    for source, file in enumerate(files):
        content = read_annotations(file)
        names = {image["id"]: image["file_name"] for image in content["images"]}
        for person in content["annotations"]:
            points = person.get("keypoints")
            if person.get("iscrowd") or not isinstance(points, list) or not any(points[2::3]):
                continue
            if len(points) != 3 * NUM_KEYPOINTS:
                raise InputError(f"{file}: annotation {person['id']} has {len(points)} keypoint numbers instead of 51")
            x, y, width, height = person["bbox"]
            paths.append(image_folder / str(names[person["image_id"]]))
            numbers.append((person["image_id"], person["id"], source))
            boxes.append([x, y, x + width, y + height])
            keypoints.append(points)
    if not paths:
        raise TrainingError(f"no person with keypoints in {', '.join(map(str, files))}")
    table = np.array(numbers, np.int64)
    return PersonRecords(
        paths,
        table[:, 0],
        table[:, 1],
        np.array(boxes, np.float32),
        np.array(keypoints, np.float32).reshape(-1, NUM_KEYPOINTS, 3),
        table[:, 2],
    )


@dataclass(frozen=True)
class CropCache:
    """Crops with margin, and the keypoints in them."""

    pixels: npt.NDArray[np.uint8]
    """(N, h, w, 3) RGB, memory-mapped; h, w = MARGIN times the network's input size."""
    keypoints_xy: FloatArray
    """(N, 17, 2) pixels of the cached crop, corner-origin."""
    visibility: npt.NDArray[np.uint8]
    """(N, 17): 0 not labelled, 1 hidden, 2 visible."""
    records: PersonRecords

    def __len__(self) -> int:
        return len(self.keypoints_xy)


def cache_size(input_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the cached crops."""
    return round(input_size[0] * MARGIN), round(input_size[1] * MARGIN)


def build_cache(
    records: PersonRecords,
    input_size: tuple[int, int],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> CropCache:
    """Cut everybody out once; a cache that is already whole is opened instead.

    Args:
        folder: where the cache lies; its name follows from all that decides its content.
        progress: called with (people done, people in all).
    """
    size = cache_size(input_size)
    regions = crop_boxes(records.boxes_xyxy, input_size, preprocessing.box_padding)
    centre, half = (regions[:, :2] + regions[:, 2:]) / 2, (regions[:, 2:] - regions[:, :2]) / 2 * MARGIN
    affines = crop_affines(np.concatenate([centre - half, centre + half], axis=1), size)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"crops-{_fingerprint(records, size, preprocessing)}.npy"
    if not path.exists():
        _fill(path, records, affines, size, preprocessing, workers, progress)
    return CropCache(
        np.load(path, mmap_mode="r"),
        transform_points(affines, records.keypoints[..., :2]),
        records.keypoints[..., 2].astype(np.uint8),
        records,
    )


def _fingerprint(records: PersonRecords, size: tuple[int, int], preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256(repr((size, preprocessing)).encode())
    digest.update(records.boxes_xyxy.tobytes())
    digest.update("\n".join(map(str, records.image_paths)).encode())
    return digest.hexdigest()[:16]


def _fill(
    path: Path,
    records: PersonRecords,
    affines: FloatArray,
    size: tuple[int, int],
    preprocessing: Preprocessing,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(records), *size, 3))
    rows_of: dict[Path, list[int]] = {}
    for row, image_path in enumerate(records.image_paths):
        rows_of.setdefault(image_path, []).append(row)

    def cut(item: tuple[Path, list[int]]) -> int:
        image = read_image(item[0])
        for row in item[1]:
            pixels[row] = warp(image, affines[row], size, preprocessing.mean)
        return len(item[1])

    try:
        with ThreadPoolExecutor(workers) as pool:
            done = 0
            for count in pool.map(cut, rows_of.items()):
                done += count
                if progress is not None:
                    progress(done, len(records))
        pixels.flush()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def epoch_order(
    sources: npt.NDArray[np.int64], weights: Sequence[float], seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """The rows of one epoch in random order; it depends on nothing but the arguments.

    A source of weight w and n people gives round(w n) of them: each floor(w) times, and a random part once more.
    """
    generator = np.random.default_rng([seed, epoch])
    chosen: list[npt.NDArray[np.int64]] = []
    for source, weight in enumerate(weights):
        rows = np.flatnonzero(sources == source)
        whole, rest = divmod(round(weight * len(rows)), max(1, len(rows)))
        chosen += [np.tile(rows, whole), generator.permutation(rows)[:rest]]
    return generator.permutation(np.concatenate(chosen))


@dataclass(frozen=True)
class PoseBatch:
    """Cached crops on the device."""

    pixels: Tensor
    """(B, 3, h, w) uint8."""
    keypoints_xy: Tensor
    """(B, 17, 2) float32 pixels of the cached crop."""
    visibility: Tensor
    """(B, 17) uint8."""


def batch_of(cache: CropCache, rows: npt.NDArray[np.int64], device: torch.device) -> PoseBatch:
    """Gather rows of the cache onto the device."""
    ordered = np.sort(rows)  # the memory map is read front to back
    pixels = torch.from_numpy(cache.pixels[ordered]).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return PoseBatch(
        pixels,
        torch.from_numpy(cache.keypoints_xy[ordered]).to(device),
        torch.from_numpy(cache.visibility[ordered]).to(device),
    )


def steps(order: npt.NDArray[np.int64], batch: int, rank: int, world: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each step of one process: a step takes ``batch * world`` rows, a short last step is left out."""
    together = batch * world
    for start in range(0, len(order) - together + 1, together):
        yield order[start + rank * batch : start + (rank + 1) * batch]
