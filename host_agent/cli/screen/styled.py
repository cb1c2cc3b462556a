"""Lines of styled text: colored for a terminal, plain for a pipe.

The styles are names that the package rich knows ("red", "bold", "dim green"). Only the terminal's own sixteen
colors are used, so that text is readable on a dark and on a light background.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.color import ColorSystem
    from rich.style import Style
    from rich.text import Text

Segment = tuple[str, str]
"""A text and its style."""
Line = Sequence[Segment]

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(line: Line) -> str:
    """Return the text of a line without its styles."""
    return "".join(text for text, _ in line).rstrip()


def printable(text: str) -> str:
    """Return `text` without control characters, and with spaces for tabs.

    A log or a model's answer may contain commands that would clear the terminal, change its colors or write
    into its input.
    """
    return _CONTROL_CHARACTERS.sub("", text.replace("\t", "    "))


def wrapped(line: Line, width: int) -> list[Line]:
    """Wrap a line that has one segment into lines of at most `width` columns."""
    ((text, style),) = line
    return [[(part, style)] for part in textwrap.wrap(text, max(width, 1)) or [""]]


def print_lines(lines: Iterable[Line]) -> None:
    """Print each line to stdout, in color if stdout is a terminal. Long lines are wrapped by the terminal."""
    written = _colored if sys.stdout.isatty() else plain
    for line in lines:
        print(written(line))


def can_show_live() -> bool:
    """Return True if stdout is a terminal whose cursor can be moved."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def as_text(line: Line) -> Text:
    """Convert the line to a `rich.text.Text`."""
    from rich.text import Text

    return Text.assemble(*line)


def _colored(line: Line) -> str:
    """Return the text of the line with escape sequences for its styles.

    It does not use rich's Console, which would take ten times as long.
    """
    return "".join(_style(name).render(printable(text), color_system=_color_system()) for text, name in line)


@functools.cache
def _style(name: str) -> Style:
    from rich.style import Style

    return Style.parse(name)


@functools.cache
def _color_system() -> ColorSystem | None:
    """Return the color system of the terminal; None if the terminal has no colors or NO_COLOR is set."""
    from rich.color import ColorSystem
    from rich.console import Console

    console = Console()
    return None if console.no_color or console.color_system is None else ColorSystem.STANDARD
