"""Compare the answer of a request whose engine was killed with its undisturbed answer. Pure."""

from __future__ import annotations

from enum import StrEnum

SURE_CHARS = 8
"""How many characters must match before a difference counts as a gap or a repetition."""


class TextVerdict(StrEnum):
    EQUAL = "equal"
    LOST = "lost"  # no end, or a part of the text is missing
    DOUBLED = "doubled"  # a part of the text came twice
    DIFFERENT = "different"  # complete, but another text, as after different rounding


def judge(got: str, finished: bool, wanted: str) -> TextVerdict:
    """Return how the received text `got` compares with the undisturbed text `wanted`: equal, a part is lost,
    a part came twice, or otherwise different.

    If `finished` is False, the answer did not come to its end, which counts as a lost part.
    """
    if not finished:
        return TextVerdict.LOST
    if got == wanted:
        return TextVerdict.EQUAL
    at = _first_difference(got, wanted)
    rest_got, rest_wanted = got[at:], wanted[at:]
    if not rest_got or _goes_on_later(rest_got, rest_wanted):
        return TextVerdict.LOST
    if not rest_wanted or _goes_on_earlier(rest_got, wanted, at):
        return TextVerdict.DOUBLED
    return TextVerdict.DIFFERENT


def _first_difference(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _goes_on_later(rest_got: str, rest_wanted: str) -> bool:
    """Return whether a part is missing in the received text: whether it continues with something that the
    undisturbed text has at a later position. Both are given from their first difference on.
    """
    return len(rest_got) >= SURE_CHARS and rest_got[: 2 * SURE_CHARS] in rest_wanted


def _goes_on_earlier(rest_got: str, wanted: str, at: int) -> bool:
    """Return whether a part is repeated in the received text. That text first differs from the undisturbed
    text `wanted` at the position `at`, and `rest_got` is the received text from there on.

    A part is repeated if the first characters of `rest_got` also occur in `wanted`, at a position before
    `at`. Up to 2 * SURE_CHARS characters are compared, and there must be at least SURE_CHARS.
    """
    head = rest_got[: 2 * SURE_CHARS]
    found = wanted.rfind(head, 0, at + len(head) - 1) if len(head) >= SURE_CHARS else -1
    return found >= 0
