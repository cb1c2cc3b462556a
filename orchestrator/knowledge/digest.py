"""What stands in an agent's files, in so few characters that a small model reads it whole. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest

MOST_LINE_CHARS = 200


def digest(outline: Iterable[tuple[str, str, str]], most_chars: int) -> str:
    """A line a chunk ("file > heading: its first sentence"), as many as fit.

    `outline` is (file, heading, text) in the files' order. Every file gives its first chunk before any gives
    its second, so that a long file does not stand for all.
    """
    by_file: dict[str, list[str]] = {}
    for file, heading, text in outline:
        by_file.setdefault(file, []).append(_line(file, heading, text))
    taken: dict[str, list[str]] = {file: [] for file in by_file}
    left = most_chars
    for turn in zip_longest(*by_file.values()):
        for file, line in zip(by_file, turn, strict=True):
            if line is not None and len(line) < left:
                taken[file].append(line)
                left -= len(line) + 1
    return "\n".join(line for lines in taken.values() for line in lines)


def _line(file: str, heading: str, text: str) -> str:
    flat = " ".join(text.split())
    sentence = re.split(r"(?<=[.!?:]) ", flat, maxsplit=1)[0]
    where = f"{file} > {heading}" if heading else file
    return f"{where}: {sentence}"[:MOST_LINE_CHARS]
