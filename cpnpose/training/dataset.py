"""People of COCO keypoint files, decoded and cropped once into a memory-mapped cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpnpose.errors import InputError, OutputError
from cpnpose.pipeline.crop import warp
from cpnpose.pose.geometry import crop_affines, crop_boxes, transform_points
from cpnpose.pose.types import FloatArray, Preprocessing
from cpnpose.training.annotations import PersonRecords, read_annotations, read_people
from cpnpose.whole_file import whole_file

__all__ = [
    "MARGIN",
    "CropCache",
    "PersonRecords",
    "PoseBatch",
    "batch_of",
    "build_cache",
    "cache_size",
    "epoch_order",
    "read_annotations",
    "read_people",
    "steps",
]

MARGIN = 1.5
"""A cached crop shows this many times the height and width of the crop that the network sees."""


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

    Raises:
        InputError: an image is missing or damaged; the message names it. No cache is left behind.
        OutputError: the cache cannot be written.
    """
    size = cache_size(input_size)
    regions = crop_boxes(records.boxes_xyxy, input_size, preprocessing.box_padding)
    centre, half = (regions[:, :2] + regions[:, 2:]) / 2, (regions[:, 2:] - regions[:, :2]) / 2 * MARGIN
    affines = crop_affines(np.concatenate([centre - half, centre + half], axis=1), size)
    path = folder / f"crops-{_fingerprint(records, size, preprocessing)}.npy"
    if not path.exists():
        _check_images(records)
        try:
            with whole_file(path) as part:
                _fill(part, records, affines, size, preprocessing, workers, progress)
        except OutputError as error:
            needed = len(records) * size[0] * size[1] * 3 / 1e9
            raise OutputError(f"{error} by --cache; the cache of crops needs {needed:.1f} GB") from error
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


def _check_images(records: PersonRecords) -> None:
    """Missing files are told at once, not after minutes of decoding."""
    rows = dict(zip(records.image_paths, range(len(records)), strict=True))
    missing = [row for path, row in rows.items() if not path.is_file()]
    if missing:
        first = missing[0]
        wanted = f", wanted by {records.files[int(records.sources[first])]}" if records.files else ""
        raise InputError(
            f"{records.image_paths[first]}: there is no such image{wanted}; "
            f"{len(missing)} of {len(rows)} are missing, check --data"
        )


def _fill(
    path: Path,
    records: PersonRecords,
    affines: FloatArray,
    size: tuple[int, int],
    preprocessing: Preprocessing,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(records), *size, 3))
    _reserve(path)
    rows_of: dict[Path, list[int]] = {}
    for row, image_path in enumerate(records.image_paths):
        rows_of.setdefault(image_path, []).append(row)

    def cut(rows: list[int]) -> int:
        image = records.read_image(rows[0])
        for row in rows:
            pixels[row] = warp(image, affines[row], size, preprocessing.mean)
        return len(rows)

    pool = ThreadPoolExecutor(workers)
    try:
        done = 0
        for count in pool.map(cut, rows_of.values()):
            done += count
            if progress is not None:
                progress(done, len(records))
    finally:
        pool.shutdown(cancel_futures=True)  # a damaged image stops the work at once
    pixels.flush()


def _reserve(path: Path) -> None:
    """Have the disk's room given to a file, where the system can: a full disk is an OSError then, while a memory map
    that it has no room for would end the process by a bus error."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


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
    """Gather rows of the cache onto the device, in the order of ``rows``."""
    pixels = np.empty((len(rows), *cache.pixels.shape[1:]), np.uint8)
    for place in np.argsort(rows):  # the memory map is read front to back
        pixels[place] = cache.pixels[rows[place]]
    on_host = torch.from_numpy(pixels)
    if device.type == "cuda":
        on_host = on_host.pin_memory()
    return PoseBatch(
        on_host.to(device, non_blocking=True).permute(0, 3, 1, 2),
        torch.from_numpy(cache.keypoints_xy[rows]).to(device),
        torch.from_numpy(cache.visibility[rows]).to(device),
    )


def steps(order: npt.NDArray[np.int64], batch: int, rank: int, world: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each step of one process: a step takes ``batch * world`` rows, a short last step is left out."""
    together = batch * world
    for start in range(0, len(order) - together + 1, together):
        yield order[start + rank * batch : start + (rank + 1) * batch]
