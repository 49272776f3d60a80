"""Tables whose figures are whole in every terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_SHORTEST_NAME = 12
"""Columns into which the names of rows are folded at most."""


def output_console() -> Console:
    """Standard output. Where whoever reads it has had enough, a BrokenPipeError is raised as by any other output."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would end the program with an exit code of its own

    return Output()


def print_table(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], *, names: bool = True
) -> None:
    """Print rows of text as a table, or one below the other where their figures do not fit beside each other.

    headings: one for each column. names: the first column holds names, which may be folded; all others are figures.
    """
    from rich.table import Table

    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, [*heading.split(), *cells, ""])) for heading, cells in zip(headings, columns, strict=True)]
    if names:
        words = [word for text in (headings[0], *columns[0]) for word in text.split()]
        widths[0] = max(map(len, [headings[0], *(word[:_SHORTEST_NAME] for word in words)]))
    if sum(widths) + 3 * len(widths) + 1 > console.width:
        _print_below_each_other(console, headings, rows, names=names)
        return
    table = Table()
    for number, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        if names and number == 0:
            table.add_column(heading, min_width=width, overflow="fold")
        else:
            table.add_column(heading, width=width, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def _print_below_each_other(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], *, names: bool
) -> None:
    for row in rows:
        cells = list(zip(headings, row, strict=True))
        if names:
            console.print(row[0], markup=False, highlight=False)
            del cells[0]
        for heading, cell in cells:
            console.print(f"  {heading}: {cell}", markup=False, highlight=False)
