"""Print a table: in color and fitted to the width of a terminal, or for a pipe as plain text, one line per
row.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from host_agent.cli.screen.styled import printable, unguarded

Cell = str | tuple[str, str]
"""A text, or a text and its style for rich: ("ready", "green"). A text may have several lines."""

UNLIMITED_WIDTH = 100_000


@dataclass(frozen=True)
class Column:
    """One column of a table. If `width` is given, the column has that many characters.

    Titles are shown if any column has a title. If the terminal is too narrow, only columns with `wraps`
    become narrower.
    """

    title: str = ""
    align: Literal["left", "right"] = "left"
    width: int | None = None
    wraps: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print `rows` to stdout, without control characters. If stdout is a pipe, nothing is wrapped, colored or
    shortened.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    has_titles = any(column.title for column in columns)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=has_titles)
    for column in columns:
        table.add_column(
            column.title,
            justify=column.align,
            width=column.width,
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for row in rows:
        # Text, because rich would take brackets in a str for markup and drop "[metal::malloc]".
        styled = ((cell, "") if isinstance(cell, str) else cell for cell in row)
        table.add_row(*(Text(printable(text), style) for text, style in styled))
    if sys.stdout.isatty():
        Console(file=unguarded(sys.stdout), highlight=False).print(table)
        return
    console = Console(width=UNLIMITED_WIDTH, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())
