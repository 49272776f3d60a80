"""COCO keypoint results: what ``pycocotools`` takes in ``loadRes``.

Format: cocodataset.org, "Results Format", keypoint detection.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.formats.frame_record import PIXEL_DECIMALS, SCORE_DECIMALS, image_file, rounded
from cpnpose.formats.header import Header
from cpnpose.formats.json_array import write_json_array
from cpnpose.formats.trajectories import TEMPORARY
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FloatArray, FrameResult, Poses
from cpnpose.whole_file import writing

PERSON_CATEGORY = 1


def write_coco(header: Header, frames: Iterable[FrameResult], path: Path | str, *, overwrite: bool = False) -> None:
    """Write ``[{image_id, category_id: 1, keypoints: [x, y, score]*17, score}]``, in constant memory.

    ``image_id`` is the frame's index, for a set of images the position in it. Where the names of all its images are
    numbers, each another (``000000000139.jpg``), it is that number, as in COCO's own sets. Frames without people leave
    no entry: the format has no place for them. Coordinates are those of the record, which is the frame of COCO's
    labels.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    write_json_array(path, _items(frames), overwrite=overwrite)


def _items(frames: Iterable[FrameResult]) -> Iterator[dict[str, Any]]:
    """The people of the frames. Those of images go through a temporary file: what their ids are is known at the end."""
    numbers: list[int | None] = []
    with tempfile.TemporaryFile() as waiting:
        for result in frames:
            people, file = list(_people(result.poses)), image_file(result)
            if file is None:
                yield from ({"image_id": int(result.frame.index), **person} for person in people)
                continue
            numbers.append(image_number(file))
            with writing(TEMPORARY):
                waiting.write(json.dumps([int(result.frame.index), people]).encode() + b"\n")
        with writing(TEMPORARY):
            waiting.seek(0)
        numbered = None not in numbers and len(set(numbers)) == len(numbers)
        for number, line in zip(numbers, waiting, strict=True):
            index, people = json.loads(line)
            yield from ({"image_id": number if numbered else index, **person} for person in people)


def _people(poses: Poses) -> Iterator[dict[str, Any]]:
    scores = rounded(poses.scores, SCORE_DECIMALS)
    for keypoints, score in zip(flat_keypoints(poses), scores, strict=True):
        yield {"category_id": PERSON_CATEGORY, "keypoints": keypoints, "score": score}


def image_number(file: str) -> int | None:
    """The number that is an image's name, without its ending; None where the name is none."""
    stem = PurePath(file).stem
    return int(stem) if stem.isascii() and stem.isdigit() else None


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
