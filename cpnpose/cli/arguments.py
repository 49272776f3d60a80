"""Small parsers of command-line values."""

from __future__ import annotations

import re

from cpnpose.errors import OptionError


def parse_size(text: str, name: str = "--size", multiple: int = 32) -> tuple[int, int]:
    """``256x192`` to (256, 192): height x width, both multiples of ``multiple``.

    Raises:
        OptionError: it has another form.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) <= 0 or size[0] % multiple or size[1] % multiple:
        raise OptionError(f"{name} {text}: write HEIGHTxWIDTH, both multiples of {multiple}, such as 256x192")
    return size
