"""MMPose's predictions of a video: ``[{frame_id, instances: [...]}]``, as its inferencer writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpnpose.formats.frame_record import PIXEL_DECIMALS, SCORE_DECIMALS, rounded, track_ids
from cpnpose.formats.header import Header
from cpnpose.formats.json_array import write_json_array
from cpnpose.pose.types import FrameResult, Poses


def write_mmpose(header: Header, frames: Iterable[FrameResult], path: Path | str, *, overwrite: bool = False) -> None:
    """Write one entry per frame, those without people included, in constant memory.

    An instance has ``keypoints`` [[x, y]*17], ``keypoint_scores``, ``bbox`` [[x1, y1, x2, y2]], ``bbox_score``, and
    ``track_id`` where there is one. ``frame_id`` is the frame's index in the input, from 0.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    entries = ({"frame_id": int(result.frame.index), "instances": _instances(result.poses)} for result in frames)
    write_json_array(path, entries, overwrite=overwrite)


def _instances(poses: Poses) -> list[dict[str, Any]]:
    if len(poses) == 0:
        return []
    columns = zip(
        rounded(poses.keypoints_xy, PIXEL_DECIMALS),
        rounded(poses.keypoint_scores, SCORE_DECIMALS),
        rounded(poses.boxes_xyxy, PIXEL_DECIMALS),
        rounded(poses.box_scores, SCORE_DECIMALS),
        track_ids(poses),
        strict=True,
    )
    return [
        {"keypoints": xy, "keypoint_scores": scores, "bbox": [box], "bbox_score": box_score}
        | ({} if identity is None else {"track_id": identity})
        for xy, scores, box, box_score, identity in columns
    ]
