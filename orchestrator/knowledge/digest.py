"""Summarize an agent's files in a limited number of characters, so that a small model can read the whole
digest. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest

MAX_LINE_CHARS = 200


def digest(outline: Iterable[tuple[str, str, str]], max_chars: int) -> str:
    """Return one line per chunk (`file > heading: first sentence`), as many lines as fit into `max_chars`.

    `outline` has (file, heading, text) per chunk, in the order of the files. The first chunk of every file is
    taken before the second chunk of any file, so that one long file does not fill the digest.
    """
    by_file: dict[str, list[str]] = {}
    for file, heading, text in outline:
        by_file.setdefault(file, []).append(_line(file, heading, text))
    taken: dict[str, list[str]] = {file: [] for file in by_file}
    remaining = max_chars
    for lines in zip_longest(*by_file.values()):
        for file, line in zip(by_file, lines, strict=True):
            if line is not None and len(line) < remaining:
                taken[file].append(line)
                remaining -= len(line) + 1
    return "\n".join(line for lines in taken.values() for line in lines)


def _line(file: str, heading: str, text: str) -> str:
    flat = " ".join(text.split())
    sentence = re.split(r"(?<=[.!?:]) ", flat, maxsplit=1)[0]
    where = f"{file} > {heading}" if heading else file
    return f"{where}: {sentence}"[:MAX_LINE_CHARS]
