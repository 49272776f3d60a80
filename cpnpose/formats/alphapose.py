"""AlphaPose's results file: one entry per person, as its demo writes ``alphapose-results.json``.

Format: docs/output.md of MVIG-SJTU/AlphaPose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cpnpose.formats.coco import PERSON_CATEGORY, flat_keypoints
from cpnpose.formats.frame_record import PIXEL_DECIMALS, SCORE_DECIMALS, image_file, rounded, track_ids
from cpnpose.formats.header import Header
from cpnpose.formats.json_array import write_json_array
from cpnpose.pose.types import FrameResult


def write_alphapose(
    header: Header, frames: Iterable[FrameResult], path: Path | str, *, overwrite: bool = False
) -> None:
    """Write ``[{image_id, category_id: 1, keypoints, score, box, idx}]`` in constant memory.

    ``image_id`` is ``INDEX.jpg`` for a video's frame, the file's name for an image; ``box`` is [x, y, width, height];
    ``idx`` is the track id, 0 where there is none. Frames without people leave no entry.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    write_json_array(path, (item for result in frames for item in _items(result)), overwrite=overwrite)


def _items(result: FrameResult) -> Iterator[dict[str, Any]]:
    poses = result.poses
    name = image_file(result) or f"{result.frame.index}.jpg"
    boxes = poses.boxes_xyxy.copy()
    boxes[:, 2:] -= boxes[:, :2]
    columns = zip(
        flat_keypoints(poses),
        rounded(poses.scores, SCORE_DECIMALS),
        rounded(boxes, PIXEL_DECIMALS),
        track_ids(poses),
        strict=True,
    )
    for keypoints, score, box, identity in columns:
        yield {
            "image_id": name,
            "category_id": PERSON_CATEGORY,
            "keypoints": keypoints,
            "score": score,
            "box": box,
            "idx": identity or 0,
        }
