"""Formats with one person per file: how the files of several people are named, and how they appear together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpnpose.errors import InputError
from cpnpose.formats.output_file import refuse_existing


def person_paths(path: Path | str, ids: Sequence[int], *, overwrite: bool) -> dict[int, Path]:
    """The file of each person: ``path`` for one, ``NAME_idID.EXT`` for several.

    Raises:
        InputError: ``ids`` is empty.
        OutputError: one of the files exists and ``overwrite`` is not set, or ``path`` is a folder.
    """
    if not ids:
        raise InputError("nobody with an id is in the record; there is nothing to write")
    path = Path(path)
    refuse_existing(path, overwrite=True)  # a folder alone: the names of several people would stand beside it
    paths = {identity: path.with_name(f"{path.stem}_id{identity}{path.suffix}") for identity in ids}
    if len(ids) == 1:
        paths = {ids[0]: path}
    for file in paths.values():
        refuse_existing(file, overwrite)
    return paths
