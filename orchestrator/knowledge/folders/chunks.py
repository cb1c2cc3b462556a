"""Cut a text into chunks that are short enough for an embedding model to read completely. Pure.

A chunk never crosses a heading, has the path of headings above it, and holds whole paragraphs. Only a
paragraph that is longer than a chunk is cut, at a sentence or a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARS = 900  # about 220 tokens; all-minilm reads 256
MAX_TITLE_CHARS = 200  # each chunk repeats the titles of the headings above it
# The title's end is cut by `_title`: an expression for that took the cube of the line's length.
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(\S.*)")
FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


@dataclass(frozen=True)
class Chunk:
    """A piece of a file. `heading` is the path of headings above it ("Guide > Install"), empty before the
    first heading.
    """

    heading: str
    text: str

    @property
    def embedded_text(self) -> str:
        """Return the text to embed: the headings, which often name the subject of a paragraph, and the
        chunk's text.
        """
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def chunks_of(text: str, markdown: bool, max_chars: int = MAX_CHARS) -> list[Chunk]:
    """Return the chunks of a file's text, in order; the text of each has at most `max_chars` characters. If
    `markdown` is True, a heading begins a new chunk, and is stored in the `heading` of the chunks below it.
    Otherwise, headings are ordinary text.
    """
    sections = _sections(text) if markdown else [("", text)]
    return [Chunk(heading, body) for heading, section in sections for body in _packed(section, max_chars)]


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
        title = _title(heading[2]) if heading else ""
        if heading is None or not title:
            lines.append(line)
            continue
        yield " > ".join(title for _, title in path), "\n".join(lines)
        lines = [title] if len(title) > MAX_TITLE_CHARS else []  # so that no word of it is lost
        level = len(heading[1])
        outer = [(depth, above) for depth, above in path if depth < level]
        path = [*outer, (level, title[:MAX_TITLE_CHARS].rstrip())]
    yield " > ".join(title for _, title in path), "\n".join(lines)


def _title(text: str) -> str:
    """Return the title of a heading, without the `#` that may close it."""
    return text.rstrip().rstrip("#").rstrip()


def _packed(section: str, max_chars: int) -> Iterator[str]:
    current = ""
    for paragraph in re.split(r"\n\s*\n", section):
        for piece in _pieces(paragraph.strip("\n").rstrip(), max_chars):
            joined = f"{current}\n\n{piece}" if current else piece
            if len(joined) <= max_chars:
                current = joined
                continue
            yield current
            current = piece
    if current.strip():
        yield current


def _pieces(paragraph: str, max_chars: int) -> Iterator[str]:
    start = 0  # the rest is not copied for each piece, because a paragraph may have megabytes
    while len(paragraph) - start > max_chars:
        window = paragraph[start : start + max_chars]
        ends = (window.rfind(mark) for mark in ("\n", ". ", " "))
        cut = next((end + 1 for end in ends if end > max_chars // 2), max_chars)
        if piece := window[:cut].strip():
            yield piece
        start += cut
        while start < len(paragraph) and paragraph[start].isspace():
            start += 1
    if paragraph[start:].strip():
        yield paragraph[start:]
