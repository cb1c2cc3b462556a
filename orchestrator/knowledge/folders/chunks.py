"""Text cut into chunks that an embedding model takes whole. Pure.

A chunk never crosses a heading, carries the path of headings above it, and holds whole paragraphs; only a
paragraph longer than a chunk is cut, at a sentence or a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_CHARS = 900  # some 220 tokens: all-minilm reads 256
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.+?)\s*#*\s*$")
FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


@dataclass(frozen=True)
class Chunk:
    """`heading` is the path to it ("Guide > Install"), empty outside any."""

    heading: str
    text: str

    @property
    def embedded_text(self) -> str:
        """What is embedded: the headings say what a paragraph is about when it does not."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def chunks_of(text: str, markdown: bool, most_chars: int = MOST_CHARS) -> list[Chunk]:
    """The chunks of a file, in order."""
    sections = _sections(text) if markdown else [("", text)]
    return [Chunk(heading, body) for heading, section in sections for body in _packed(section, most_chars)]


def _sections(text: str) -> Iterator[tuple[str, str]]:
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1][0] == fence[0] and len(mark[1]) >= len(fence):
            fence = ""
        heading = None if fence or mark else HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        yield " > ".join(title for _, title in path), "\n".join(lines)
        lines = []
        level = len(heading[1])
        path = [*((depth, title) for depth, title in path if depth < level), (level, heading[2])]
    yield " > ".join(title for _, title in path), "\n".join(lines)


def _packed(section: str, most_chars: int) -> Iterator[str]:
    held = ""
    for paragraph in re.split(r"\n\s*\n", section):
        for piece in _pieces(paragraph.strip("\n").rstrip(), most_chars):
            joined = f"{held}\n\n{piece}" if held else piece
            if len(joined) <= most_chars:
                held = joined
                continue
            yield held
            held = piece
    if held.strip():
        yield held


def _pieces(paragraph: str, most_chars: int) -> Iterator[str]:
    while len(paragraph) > most_chars:
        window = paragraph[:most_chars]
        ends = (window.rfind(mark) for mark in ("\n", ". ", " "))
        cut = next((end + 1 for end in ends if end > most_chars // 2), most_chars)
        yield paragraph[:cut].strip()
        paragraph = paragraph[cut:].lstrip()
    if paragraph.strip():
        yield paragraph
