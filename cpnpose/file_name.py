"""Names of files as text that every file and console takes."""

from __future__ import annotations

import re

_NO_CHARACTER = re.compile("[\ud800-\udfff]")


def printable(name: str) -> str:
    r"""``name`` with ``\xff`` in place of each byte that is no UTF-8.

    File systems allow such names. Python holds their bytes as half characters (surrogates), which nothing can encode.
    """
    return _NO_CHARACTER.sub(_escaped, name)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
