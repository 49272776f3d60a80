"""The CSV table: one row per frame and person; a frame without people has one row with empty person columns.

Columns, in this order (numbers are rounded as in the JSON; an empty cell is "none"):

- ``frame`` index in the input from 0, ``pts`` timestamp in ticks, ``time`` in seconds; before them ``file`` where the
  record is of images
- ``person`` position in the frame from 0, ``track_id``, ``score``, ``box_x1 box_y1 box_x2 box_y2``, ``box_score``
- per keypoint ``NAME_x NAME_y NAME_score``
- where the header's ``extras`` say so: ``NAME_uncertainty_px``; ``NAME_raw_x NAME_raw_y``; ``NAME_flags``
  (``filled``, ``swapped`` or both, joined by ``+``); ``NAME_angle`` in degrees

Coordinates are pixels of the upright image, (0, 0) being its upper left corner.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from cpnpose.formats.frame_record import (
    ANGLE_DECIMALS,
    FLAG_NAMES,
    PIXEL_DECIMALS,
    SCORE_DECIMALS,
    TIME_DECIMALS,
    image_file,
    joint_angles,
    rounded,
    track_ids,
)
from cpnpose.formats.header import Header
from cpnpose.formats.output_file import OutputFile
from cpnpose.pose.types import FrameResult, Poses

FLAG_TEXTS = tuple("+".join(name for name, bit in FLAG_NAMES.items() if value & bit) for value in range(4))


class CsvWriter:
    """Context manager that writes the table. Files and errors as in :class:`cpnpose.formats.JsonWriter`."""

    def __init__(self, path: Path | str, header: Header, *, overwrite: bool = False) -> None:
        self.header = header
        self.columns = csv_columns(header)
        self._buffer = io.StringIO()
        self._rows = csv.writer(self._buffer, lineterminator="\n")
        self._file = OutputFile(path, overwrite=overwrite)
        try:
            self._put([self.columns])
        except BaseException:
            self._file.discard()
            raise

    def write(self, result: FrameResult, file: str | None = None) -> None:
        """Append the rows of one frame. ``file`` names the image in a record of images."""
        frame, poses = result.frame, result.poses
        start: list[Any] = [int(frame.index), int(frame.pts), round(float(frame.time_s), TIME_DECIMALS)]
        if self.header.kind == "images":
            start.insert(0, image_file(result, file))
        if len(poses) == 0:
            self._put([start + [None] * (len(self.columns) - len(start))])
            return
        self._put([start + row for row in self._person_rows(poses)])

    def close(self) -> None:
        """Give the file its name. A second call does nothing."""
        self._file.commit()

    def abort(self) -> None:
        """As :meth:`close`, for a run that was ended early."""
        self.close()

    def discard(self) -> None:
        """Leave no file."""
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()
        else:
            self.discard()

    def _put(self, rows: list[Any]) -> None:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._rows.writerows(rows)
        self._file.write(self._buffer.getvalue().encode())

    def _person_rows(self, poses: Poses) -> list[list[Any]]:
        count, extras = len(poses), self.header.extras
        keypoints = np.empty((count, poses.keypoints_xy.shape[1], 3), object)
        keypoints[:, :, :2] = rounded(poses.keypoints_xy, PIXEL_DECIMALS)
        keypoints[:, :, 2] = rounded(poses.keypoint_scores, SCORE_DECIMALS)
        missing = np.full((count, poses.keypoints_xy.shape[1]), np.nan)
        blocks: list[list[list[Any]]] = [
            [[row, identity] for row, identity in enumerate(track_ids(poses))],
            [[score] for score in rounded(poses.scores, SCORE_DECIMALS)],
            rounded(poses.boxes_xyxy, PIXEL_DECIMALS),
            [[score] for score in rounded(poses.box_scores, SCORE_DECIMALS)],
            keypoints.reshape(count, -1).tolist(),
        ]
        if "uncertainty" in extras:
            values = missing if poses.uncertainty_px is None else poses.uncertainty_px
            blocks.append(rounded(values, PIXEL_DECIMALS))
        if "raw" in extras:
            points = poses.keypoints_xy if poses.raw_keypoints_xy is None else poses.raw_keypoints_xy
            blocks.append(rounded(points.reshape(count, -1), PIXEL_DECIMALS))
        if "flags" in extras:
            flags = np.zeros(missing.shape, np.uint8) if poses.flags is None else poses.flags
            blocks.append([[FLAG_TEXTS[value] for value in row] for row in flags])
        if "angles" in extras:
            blocks.append(rounded(joint_angles(poses)[1], ANGLE_DECIMALS))
        return [[cell for part in parts for cell in part] for parts in zip(*blocks, strict=True)]


def csv_columns(header: Header) -> list[str]:
    """The names of the columns of a record with this header."""
    columns = ["file"] if header.kind == "images" else []
    columns += [
        "frame",
        "pts",
        "time",
        "person",
        "track_id",
        "score",
        "box_x1",
        "box_y1",
        "box_x2",
        "box_y2",
        "box_score",
    ]
    names = header.keypoint_names
    columns += [f"{name}_{part}" for name in names for part in ("x", "y", "score")]
    if "uncertainty" in header.extras:
        columns += [f"{name}_uncertainty_px" for name in names]
    if "raw" in header.extras:
        columns += [f"{name}_raw_{part}" for name in names for part in ("x", "y")]
    if "flags" in header.extras:
        columns += [f"{name}_flags" for name in names]
    if "angles" in header.extras:
        columns += [f"{name}_angle" for name in joint_angles(Poses.empty())[0]]
    return columns
