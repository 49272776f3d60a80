"""Writing a JSON array item by item."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpnpose.formats.output_file import OutputFile


def write_json_array(path: Path | str, items: Iterable[Any], *, overwrite: bool = False) -> None:
    """Write ``items`` (JSON values) as one array, an item per line, in constant memory.

    Raises:
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    with OutputFile(path, overwrite=overwrite) as file:
        separator = "[\n"
        for item in items:
            text = json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            file.write((separator + text).encode())
            separator = ",\n"
        file.write(b"[]\n" if separator == "[\n" else b"\n]\n")
