from __future__ import annotations

import pytest
from rich.console import Console

from cpnpose.cli.tables import print_table

HEADINGS = ["form", "ms per crop", "times float32", "times bfloat16", "undisturbed calls"]
ROWS = [
    ["inference form, bfloat16, channels_last, GlobalNet alone", "123.456", "15.625", "12345.7", "28 of 1234"],
    ["plain float32", "7.89", "-", "2.5", "3 of 3"],
]


def shown(width: int, headings: list[str], rows: list[list[str]], *, names: bool = True) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        print_table(console, headings, rows, names=names)
    return capture.get()


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 120])
def test_figures_are_never_cut(width: int) -> None:
    metrics = ["AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large"]
    for headings, rows, names in ((HEADINGS, ROWS, True), (metrics, [[f"{n}.{n}" for n in range(10, 20)]], False)):
        text = shown(width, headings, rows, names=names)
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        assert "…" not in text
        for row in rows:
            for cell in row[names:]:
                assert any(cell in line for line in lines)


def test_names_are_folded_before_figures_go_below_each_other() -> None:
    assert shown(120, HEADINGS, ROWS).count("\n") == 3 + 2 + 2
    folded = shown(70, HEADINGS, ROWS)
    assert "┃ form" in folded
    assert folded.count("\n") > 3 + 2 + 2
    assert shown(40, HEADINGS, ROWS).startswith("inference form, bfloat16, channels_last,")
    assert "  ms per crop: 123.456\n" in shown(40, HEADINGS, ROWS)
