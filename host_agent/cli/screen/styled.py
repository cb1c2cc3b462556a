"""Lines of styled text: colored for a terminal, plain for a pipe.

The styles are names that the package rich knows ("red", "bold", "dim green"). Only the terminal's own sixteen
colors are used, so that text is readable on a dark and on a light background.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

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


def without_control_characters(text: str) -> str:
    """Return `text` without control characters other than tabs and newlines.

    A log or a model's answer may contain commands that would clear the terminal, change its colors or write
    into its input.
    """
    return _CONTROL_CHARACTERS.sub("", text)


def printable(text: str) -> str:
    """Return `text` without control characters other than newlines, and with spaces for tabs."""
    return without_control_characters(text.replace("\t", "    "))


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Let any text be printed to stdout and stderr until the `with` block ends: on a terminal, control
    characters are left out, and a character that cannot be encoded is written as an escape (`\\ud83d`).

    Code that draws on the terminal by escape sequences writes them to `unguarded(sys.stdout)`.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    guards: dict[str, object] = {}
    for name, stream in before.items():
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and stream.isatty():
            guards[name] = _GuardedTerminal(stream)
            setattr(sys, name, guards[name])
    try:
        yield
    finally:
        for name, guard in guards.items():
            if getattr(sys, name) is guard:  # a service replaces it by a stream that never raises
                setattr(sys, name, before[name])


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream that passes on escape sequences to the same place as `stream`, which is sys.stdout or
    sys.stderr. No text of other programs may be written to it unless it has passed through `printable`.
    """
    return cast(TextIO, getattr(stream, "unguarded", stream))


class _GuardedTerminal:
    """A text stream that writes to the terminal `unguarded`, and leaves out control characters."""

    def __init__(self, unguarded: TextIO) -> None:
        self.unguarded = unguarded

    def write(self, text: str) -> int:
        self.unguarded.write(without_control_characters(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def wrapped(line: Line, width: int) -> list[Line]:
    """Wrap a line that has one segment into lines of at most `width` columns."""
    ((text, style),) = line
    return [[(part, style)] for part in textwrap.wrap(text, max(width, 1)) or [""]]


def print_lines(lines: Iterable[Line]) -> None:
    """Print each line to stdout, in color if stdout is a terminal. Long lines are wrapped by the terminal."""
    written = _colored if sys.stdout.isatty() else plain
    for line in lines:
        print(written(line), file=unguarded(sys.stdout))


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
