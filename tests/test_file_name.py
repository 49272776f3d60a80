from __future__ import annotations

import os

import pytest

from cpnpose.file_name import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (os.fsdecode("käse 人.png".encode()), "käse 人.png"),
        (b"a\xff\x80.png".decode(errors="surrogateescape"), r"a\xff\x80.png"),
        ("half\ud83d.png", r"half\ud83d.png"),
    ],
)
def test_names_become_text_that_can_be_written(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert shown.encode().decode() == shown
