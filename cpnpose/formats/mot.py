"""The text file of the MOT challenge: one line per person and frame.

Format: Milan et al., "MOT16: A Benchmark for Multi-Object Tracking" (arXiv 1603.00831), section 4.1: frames, ids and
pixels are counted from 1, so the upper left corner of the image is (1, 1). Readers such as ``motmetrics`` subtract that
1 again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cpnpose.formats.frame_record import PIXEL_DECIMALS, SCORE_DECIMALS, rounded, track_ids
from cpnpose.formats.header import Header
from cpnpose.formats.output_file import OutputFile
from cpnpose.pose.types import FrameResult

FIRST = 1
"""Frames and pixels are counted from 1."""


def write_mot(header: Header, frames: Iterable[FrameResult], path: Path | str, *, overwrite: bool = False) -> None:
    """Write ``frame, id, x, y, width, height, score, -1, -1, -1`` lines in constant memory.

    ``frame`` is the frame's index plus 1, ``score`` the person's score. In a record with track ids, people without an
    id are left out; in one without, every id is -1, which is MOT's form of a detections file.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    with OutputFile(path, overwrite=overwrite) as file:
        for result in frames:
            file.write("".join(_lines(result)).encode())


def _lines(result: FrameResult) -> Iterable[str]:
    poses = result.poses
    boxes = poses.boxes_xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    boxes[:, :2] += FIRST
    rows = zip(track_ids(poses), rounded(boxes, PIXEL_DECIMALS), rounded(poses.scores, SCORE_DECIMALS), strict=True)
    for identity, (x, y, width, height), score in rows:
        if identity is None and poses.track_ids is not None:
            continue
        name = -1 if identity is None else identity
        yield f"{result.frame.index + FIRST},{name},{x},{y},{width},{height},{score},-1,-1,-1\n"
