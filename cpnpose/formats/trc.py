"""TRC, the marker file of OpenSim and of motion analysis systems: text with tabs, one person per file.

Format: OpenSim documentation, "Marker (.trc) Files".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cpnpose.file_name import printable
from cpnpose.formats.frame_record import rounded
from cpnpose.formats.header import Header
from cpnpose.formats.output_file import OutputFile
from cpnpose.formats.person_files import person_paths
from cpnpose.formats.trajectories import DECIMALS, Keypoints, Trajectories
from cpnpose.pose.types import FrameResult


def write_trc(
    header: Header,
    frames: Iterable[FrameResult],
    path: Path | str,
    *,
    overwrite: bool = False,
    person: int | None = None,
) -> list[Path]:
    """Write one file per id: ``path`` for one person, ``NAME_idID.trc`` for several. ``person`` writes only that id.

    Markers carry the keypoints' names. ``Units`` is ``px``: X and Y are the record's pixels (Y runs down), Z is 0; a
    reader that wants metres has to scale them. ``Time`` holds the frames' true seconds, ``DataRate`` their mean rate;
    the markers are empty in frames without the person. Scores have no place in the format.

    Returns:
        The files that were written.

    Raises:
        OptionError: several people and no ids, or nobody with the id ``person``.
        InputError: nobody is in the record.
        OutputError: a file exists and ``overwrite`` is not set, or it cannot be written.
    """
    with Trajectories.collect(frames) as people:
        paths = person_paths(path, people.choose(person), overwrite=overwrite)
        for identity, file in paths.items():
            _write_person(header, people, people.person(identity), file, overwrite)
    return list(paths.values())


def _write_person(header: Header, people: Trajectories, track: Keypoints, path: Path, overwrite: bool) -> None:
    names = header.keypoint_names
    rate = f"{people.rate(header):.6g}"
    count = len(track)
    rows: list[list[Any]] = [
        ["PathFileType", 4, "(X/Y/Z)", printable(path.name)],
        [
            "DataRate",
            "CameraRate",
            "NumFrames",
            "NumMarkers",
            "Units",
            "OrigDataRate",
            "OrigDataStartFrame",
            "OrigNumFrames",
        ],
        [rate, rate, count, len(names), "px", rate, 1, count],
        ["Frame#", "Time", *(cell for name in names for cell in (name, "", ""))],
        ["", "", *(f"{axis}{number}" for number in range(1, len(names) + 1) for axis in "XYZ")],
        [],
    ]
    with OutputFile(path, overwrite=overwrite) as file:
        file.write(_text(rows))
        for number, (time, keypoints) in enumerate(zip(people.times.tolist(), track, strict=True), start=1):
            points = np.where(np.isfinite(keypoints[:, :1]), [0.0], [np.nan]).astype(np.float32)
            cells = rounded(np.concatenate([keypoints[:, :2], points], axis=1).reshape(-1), DECIMALS)
            file.write(_text([[number, f"{time:.6f}", *cells]]))


def _text(rows: list[list[Any]]) -> bytes:
    lines = ("\t".join("" if cell is None else str(cell) for cell in row) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()
