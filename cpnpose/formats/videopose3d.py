"""VideoPose3D's archive of 2D keypoints, input of its lifting from 2D to 3D.

Format: data/prepare_data_2d_custom.py of facebookresearch/VideoPose3D: ``positions_2d[subject]["custom"][0]`` is
float32 (frames, 17, 2), ``metadata`` a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cpnpose.errors import InputError
from cpnpose.formats.header import Header, source_stem
from cpnpose.formats.output_file import OutputFile
from cpnpose.formats.trajectories import Keypoints, Trajectories
from cpnpose.pose.keypoints import KEYPOINT_NAMES
from cpnpose.pose.types import FloatArray, FrameResult
from cpnpose.whole_file import writing

ACTION = "custom"
LEFT = [index for index, name in enumerate(KEYPOINT_NAMES) if name.startswith("left")]
RIGHT = [index for index, name in enumerate(KEYPOINT_NAMES) if name.startswith("right")]


def write_videopose3d(
    header: Header,
    frames: Iterable[FrameResult],
    path: Path | str,
    *,
    overwrite: bool = False,
    person: int | None = None,
) -> None:
    """Write the archive; ``np.load(path, allow_pickle=True)`` reads it (``positions_2d`` and ``metadata`` are objects,
    as VideoPose3D wants them, so only open archives that you trust).

    A subject is named like the source; several people are ``NAME_idID``. The array has a row for every frame of the
    record: frames without the person are interpolated linearly between their neighbours and held at the ends, as
    VideoPose3D's own preparation does, because its network takes no gaps. ``person`` writes only that id.

    Raises:
        OptionError: several people and no ids, or nobody with the id ``person``.
        InputError: nobody is in the record.
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    with OutputFile(path, overwrite=overwrite) as file, Trajectories.collect(frames) as people:
        ids = people.choose(person)
        if not ids:
            raise InputError("nobody with an id is in the record; there is nothing to lift to 3D")
        stem = source_stem(header)
        subjects = {stem if len(ids) == 1 else f"{stem}_id{identity}": people.person(identity) for identity in ids}
        height, width = header.size or (None, None)
        metadata: dict[str, Any] = {
            "layout_name": "coco",
            "num_joints": len(KEYPOINT_NAMES),
            "keypoints_symmetry": [LEFT, RIGHT],
            "video_metadata": {name: {"w": width, "h": height, "fps": people.rate(header)} for name in subjects},
        }
        positions = {name: {ACTION: [fill_gaps(track)]} for name, track in subjects.items()}
        arrays: dict[str, Any] = {"positions_2d": np.array(positions), "metadata": np.array(metadata)}
        with writing(file.path):
            np.savez_compressed(file.stream, **arrays)
        file.commit(cut=False)


def fill_gaps(track: Keypoints) -> FloatArray:
    """(F, 17, 2) float32 of ``track`` (F, 17, 3) without gaps: per coordinate linear in between, constant at the ends.
    A keypoint that is never seen is 0."""
    positions = track[:, :, :2].reshape(len(track), -1).copy()
    time = np.arange(len(track))
    for column in positions.T:
        known = np.isfinite(column)
        column[:] = np.interp(time, time[known], column[known]) if known.any() else 0.0
    return positions.reshape(len(track), -1, 2)
