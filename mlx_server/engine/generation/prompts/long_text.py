"""Texts far beyond a context, found out early. Pure.

A tokenizer takes 1 to 5 s for a megabyte and tells no progress meanwhile. The 32 megabytes that a body may
hold took it more than a minute: no stream went on, and an engine so silent is taken for wedged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

PIECE_CHARS = 128 * 1024
"""Texts up to this length are not looked at, they cost nothing."""


def tokens_at_least(texts: Iterable[str], count: Callable[[str], int], enough: int) -> int:
    """How many tokens `texts` have at least; no more is counted than `enough`, and nothing of short ones.

    A cut may fall within a token, so each piece counts for one less.
    """
    long = [text for text in texts if text]
    if sum(map(len, long)) <= PIECE_CHARS:
        return 0
    found = 0
    for text in long:
        for start in range(0, len(text), PIECE_CHARS):
            found += max(count(text[start : start + PIECE_CHARS]) - 1, 0)
            if found > enough:
                return found
    return found
