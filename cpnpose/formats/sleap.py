"""SLEAP's analysis CSV: one row per person and frame.

Columns: ``track, frame_idx, instance.score, NODE.x, NODE.y, NODE.score``, nodes in the order of the skeleton.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpnpose.formats.frame_record import PIXEL_DECIMALS, SCORE_DECIMALS, rounded, track_ids
from cpnpose.formats.header import Header
from cpnpose.formats.output_file import OutputFile
from cpnpose.pose.types import FrameResult


def write_sleap(header: Header, frames: Iterable[FrameResult], path: Path | str, *, overwrite: bool = False) -> None:
    """Write the table in constant memory. ``track`` is ``track_ID``, empty where there is none; a keypoint that is no
    number is empty. Frames without people leave no row: the format has no place for them.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    names = ["track", "frame_idx", "instance.score"]
    names += [f"{node}.{part}" for node in header.keypoint_names for part in ("x", "y", "score")]
    with OutputFile(path, overwrite=overwrite) as file:
        file.write(_text([names]))
        for result in frames:
            file.write(_text(_rows(result)))


def _rows(result: FrameResult) -> Iterable[list[Any]]:
    poses = result.poses
    columns = zip(
        track_ids(poses),
        rounded(poses.scores, SCORE_DECIMALS),
        rounded(poses.keypoints_xy, PIXEL_DECIMALS),
        rounded(poses.keypoint_scores, SCORE_DECIMALS),
        strict=True,
    )
    for identity, score, points, scores in columns:
        track = None if identity is None else f"track_{identity}"
        nodes = [cell for (x, y), value in zip(points, scores, strict=True) for cell in (x, y, value)]
        yield [track, int(result.frame.index), score, *nodes]


def _text(rows: Iterable[list[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
