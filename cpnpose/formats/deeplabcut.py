"""DeepLabCut's multi-animal CSV: one row per frame, columns under ``scorer, individuals, bodyparts, coords``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from cpnpose.errors import InputError
from cpnpose.formats.frame_record import rounded
from cpnpose.formats.header import Header
from cpnpose.formats.output_file import OutputFile
from cpnpose.formats.trajectories import DECIMALS, Trajectories
from cpnpose.pose.types import FrameResult

SCORER = "cpnpose"
COORDS = ("x", "y", "likelihood")
MISSING = "NaN"
"""Not empty: pandas takes a first row of nothing but empty cells for the index's name, and the frame is lost."""


def write_deeplabcut(
    header: Header,
    frames: Iterable[FrameResult],
    path: Path | str,
    *,
    overwrite: bool = False,
    person: int | None = None,
) -> None:
    """Write the table; ``pandas.read_csv(path, header=[0, 1, 2, 3], index_col=0)`` reads it.

    Every frame of the record has a row, named by its index. An individual ``personID`` has a column group; its cells
    are ``NaN`` where the person is not in the frame. ``likelihood`` is the keypoint score, which is no probability.
    ``person`` writes only that id. People without an id are left out.

    Raises:
        OptionError: several people and no ids, or nobody with the id ``person``.
        InputError: nobody is in the record.
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    with OutputFile(path, overwrite=overwrite) as file, Trajectories.collect(frames) as people:
        ids = people.choose(person)
        if not ids:
            raise InputError("nobody with an id is in the record; there is nothing to write")
        columns = list(product([SCORER], [f"person{identity}" for identity in ids], header.keypoint_names, COORDS))
        names = ("scorer", "individuals", "bodyparts", "coords")
        levels = ([column[level] for column in columns] for level in range(len(names)))
        file.write(_text([name, *level] for name, level in zip(names, levels, strict=True)))
        empty = np.full((len(header.keypoint_names), len(COORDS)), np.nan, np.float32)
        for index, present in zip(people.indices.tolist(), people.frames(), strict=True):
            cells = [rounded(present.get(identity, empty).reshape(-1), DECIMALS) for identity in ids]
            file.write(_text([[index, *(MISSING if cell is None else cell for row in cells for cell in row)]]))


def _text(rows: Iterable[list[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
