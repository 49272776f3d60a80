"""C3D, the binary file of motion capture: one person per file, points only.

Format: "The C3D File Format: A Technical User Guide" (c3d.org): blocks of 512 bytes (header, parameters, data), Intel
byte order, points as four float32 (x, y, z, residual); a residual of -1 marks a point that is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cpnpose.formats.header import Header
from cpnpose.formats.output_file import OutputFile
from cpnpose.formats.person_files import person_paths
from cpnpose.formats.trajectories import Keypoints, Trajectories
from cpnpose.pose.types import FrameResult

BLOCK = 512
PARAMETER_BLOCK = 2
"""Blocks are counted from 1; the parameters follow the header."""
MAGIC = 0x50
INTEL = 84
FLOAT_SCALE = -1.0
"""A negative scale says that the data are floats."""
MISSING = -1.0
MAX_FRAMES_16 = 0xFFFF

Parameter = tuple[str, str | Sequence[str] | int | float | tuple[int, ...]]


def write_c3d(
    header: Header,
    frames: Iterable[FrameResult],
    path: Path | str,
    *,
    overwrite: bool = False,
    person: int | None = None,
) -> list[Path]:
    """Write one file per id: ``path`` for one person, ``NAME_idID.c3d`` for several. ``person`` writes only that id.

    Points carry the keypoints' names; ``POINT:UNITS`` is ``px``, X and Y are the record's pixels (Y runs down), Z is 0.
    ``POINT:RATE`` is the mean frame rate: the format knows no times, so a variable rate is lost, and scores too. Frames
    without the person hold missing points.

    Returns:
        The files that were written.

    Raises:
        OptionError: several people and no ids, or nobody with the id ``person``.
        InputError: nobody is in the record.
        OutputError: a file exists and ``overwrite`` is not set, or it cannot be written.
    """
    with Trajectories.collect(frames) as people:
        paths = person_paths(path, people.choose(person), overwrite=overwrite)
        rate = people.rate(header)
        for identity, file in paths.items():
            _write_person(header.keypoint_names, people.person(identity), rate, file, overwrite)
    return list(paths.values())


def _write_person(names: Sequence[str], track: Keypoints, rate: float, path: Path, overwrite: bool) -> None:
    count = len(track)
    # The parameters hold the number of the block where the data start, which depends on their own length.
    blocks = len(_parameters(names, count, rate, 0)) // BLOCK
    data_block = PARAMETER_BLOCK + blocks
    points = np.zeros((count, len(names), 4), "<f4")
    points[:, :, :2] = np.nan_to_num(track[:, :, :2])
    points[:, :, 3] = np.where(np.isfinite(track[:, :, :2]).all(axis=2), 0.0, MISSING)
    with OutputFile(path, overwrite=overwrite) as file:
        file.write(_header(len(names), count, rate, data_block))
        file.write(_parameters(names, count, rate, data_block))
        file.write(_padded(points.tobytes()))


def _header(points: int, frames: int, rate: float, data_block: int) -> bytes:
    last = min(frames, MAX_FRAMES_16)
    first_words = struct.pack(
        "<BBHHHHHfHHf", PARAMETER_BLOCK, MAGIC, points, 0, 1, last, 0, FLOAT_SCALE, data_block, 0, rate
    )
    return _padded(first_words)


def _parameters(names: Sequence[str], frames: int, rate: float, data_block: int) -> bytes:
    """The parameter section, padded to whole blocks."""
    groups: list[tuple[str, list[Parameter]]] = [
        (
            "POINT",
            [
                ("USED", len(names)),
                ("SCALE", FLOAT_SCALE),
                ("RATE", float(rate)),
                ("DATA_START", data_block),
                ("FRAMES", min(frames, MAX_FRAMES_16)),
                ("LONG_FRAMES", float(frames)),
                ("UNITS", "px"),
                ("X_SCREEN", "+X"),
                ("Y_SCREEN", "-Y"),
                ("LABELS", list(names)),
                ("DESCRIPTIONS", ["pixels of the upright image, y down"] * len(names)),
            ],
        ),
        ("ANALOG", [("USED", 0), ("GEN_SCALE", 1.0), ("RATE", 0.0)]),
        (
            "TRIAL",
            [
                ("ACTUAL_START_FIELD", (1, 0)),
                ("ACTUAL_END_FIELD", (frames & 0xFFFF, frames >> 16)),
                ("CAMERA_RATE", float(rate)),
            ],
        ),
        ("MANUFACTURER", [("COMPANY", "cpnpose"), ("SOFTWARE", "cpnpose")]),
    ]
    entries = []
    for number, (group, parameters) in enumerate(groups, start=1):
        entries.append((group, -number, b""))
        entries += [(name, number, _value(value)) for name, value in parameters]
    body = b""
    for position, (name, number, value) in enumerate(entries):
        rest = value + b"\0"  # no description
        offset = 0 if position == len(entries) - 1 else 2 + len(rest)
        body += struct.pack("<bb", len(name), number) + name.encode() + struct.pack("<H", offset) + rest
    blocks = -(-(len(body) + 4) // BLOCK)
    return _padded(struct.pack("<BBBB", 1, MAGIC, blocks, INTEL) + body)


def _value(value: str | Sequence[str] | int | float | tuple[int, ...]) -> bytes:
    """Type, dimensions and data of a parameter."""
    if isinstance(value, str):
        return struct.pack("<bBB", -1, 1, len(value)) + value.encode()
    if isinstance(value, float):
        return struct.pack("<bBf", 4, 0, value)
    if isinstance(value, int):
        return struct.pack("<bBH", 2, 0, value)
    if isinstance(value, tuple):
        return struct.pack(f"<bBB{len(value)}H", 2, 1, len(value), *value)
    width = max(len(text) for text in value)
    cells = "".join(text.ljust(width) for text in value)
    return struct.pack("<bBBB", -1, 2, width, len(value)) + cells.encode()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % BLOCK)
