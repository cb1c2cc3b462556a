"""Draft the next tokens of a text from the text itself: what followed its last tokens when they occurred
before. Pure.

The method is known as prompt lookup decoding or n-gram speculation. It needs no second model. It drafts well
when an answer copies: edited code, quotations, JSON with repeated keys, a summary of a text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MATCH_TOKENS = 3
"""How many last tokens must have occurred before. Two tokens match by chance too often, and verifying a wrong
draft takes time."""


class PromptLookup:
    """The tokens of one request, from which drafts are made. A search through 20,000 tokens takes
    some 40 µs.
    """

    def __init__(self) -> None:
        self._tokens: NDArray[np.int32] = np.empty(1024, np.int32)
        self._size = 0

    def read(self, tokens: Sequence[int]) -> None:
        """Add the request's new tokens to those from which drafts are made. `tokens` are all tokens of the
        request so far, in order, including those of earlier calls.
        """
        if len(tokens) > len(self._tokens):
            grown = np.empty(2 * len(tokens), np.int32)
            grown[: self._size] = self._tokens[: self._size]
            self._tokens = grown
        self._tokens[self._size : len(tokens)] = tokens[self._size :]
        self._size = len(tokens)

    def guess(self, next_token: int | None, limit: int) -> list[int]:
        """Return up to `limit` tokens that may come next, namely those that followed the request's last
        `MATCH_TOKENS` tokens when these occurred before; [] if they have not occurred before.

        `next_token` is the token that follows those passed to `read`, and is then the last of the request's
        tokens; None if it is not known yet.
        """
        known = self._tokens[: self._size]
        drawn = [] if next_token is None else [next_token]
        last = [*known[-MATCH_TOKENS:].tolist(), *drawn][-MATCH_TOKENS:]
        # A match must end before the last known token, so that at least one token follows it.
        starts = self._size - MATCH_TOKENS
        if starts <= 0 or limit <= 0:
            return []
        matches = known[:starts] == last[0]
        for i in range(1, MATCH_TOKENS):
            matches &= known[i : starts + i] == last[i]
        (found,) = np.nonzero(matches)
        if not len(found):
            return []
        begin = int(found[-1]) + MATCH_TOKENS
        guessed: list[int] = known[begin : begin + limit].tolist()
        if len(guessed) < limit:  # the match overlaps with the end: the text has begun to repeat itself
            period = [*guessed, *drawn]
            guessed = (period * limit)[:limit]
        return guessed
