"""COCO keypoint results: what ``pycocotools`` takes in ``loadRes``.

Format: cocodataset.org, "Results Format", keypoint detection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.formats.frame_record import PIXEL_DECIMALS, SCORE_DECIMALS, image_file, rounded
from cpnpose.formats.header import Header
from cpnpose.formats.json_array import write_json_array
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FloatArray, FrameResult, Poses

PERSON_CATEGORY = 1


def write_coco(header: Header, frames: Iterable[FrameResult], path: Path | str, *, overwrite: bool = False) -> None:
    """Write ``[{image_id, category_id: 1, keypoints: [x, y, score]*17, score}]``, in constant memory.

    ``image_id`` is the frame's index; for images whose name is a number (``000000000139.jpg``) it is that number, as in
    COCO's own sets. Frames without people leave no entry: the format has no place for them. Coordinates are those of
    the record, which is the frame of COCO's labels.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    write_json_array(path, (item for result in frames for item in _items(result)), overwrite=overwrite)


def _items(result: FrameResult) -> Iterator[dict[str, Any]]:
    image_id = coco_image_id(result)
    scores = rounded(result.poses.scores, SCORE_DECIMALS)
    for keypoints, score in zip(flat_keypoints(result.poses), scores, strict=True):
        yield {"image_id": image_id, "category_id": PERSON_CATEGORY, "keypoints": keypoints, "score": score}


def coco_image_id(result: FrameResult) -> int:
    """The number of an image whose name is a number, the frame's index otherwise."""
    stem = PurePath(image_file(result) or "").stem
    return int(stem) if stem.isascii() and stem.isdigit() else int(result.frame.index)


def flat_keypoints(poses: Poses) -> list[list[float]]:
    """N lists of 51 numbers: x, y, score of each keypoint."""
    flat = joined(poses.keypoints_xy, poses.keypoint_scores).reshape(len(poses), NUM_KEYPOINTS * 3)
    values: list[list[float]] = flat.tolist()
    return values


def joined(xy: FloatArray, scores: FloatArray) -> npt.NDArray[np.float64]:
    """Rounded (N, K, 3) of ``xy`` (N, K, 2) and ``scores`` (N, K). Keypoints that are no numbers become 0, 0, 0, which
    is how these formats write a keypoint that was not found."""
    values = np.concatenate(
        [
            np.round(xy.astype(np.float64), PIXEL_DECIMALS),
            np.round(scores.astype(np.float64), SCORE_DECIMALS)[:, :, None],
        ],
        axis=2,
    )
    values[~np.isfinite(values).all(axis=2)] = 0.0
    return values
