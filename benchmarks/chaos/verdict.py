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
    """Return the verdict on the text `got`, given the undisturbed text `wanted`. `finished` says whether the
    answer came to its end.
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
    """Return whether the received text continues at a later position of the wanted text, so that a part of it
    is missing.
    """
    return len(rest_got) >= SURE_CHARS and rest_got[: 2 * SURE_CHARS] in rest_wanted


def _goes_on_earlier(rest_got: str, wanted: str, at: int) -> bool:
    """Return whether the received text continues at a position before `at` in the wanted text, so that a part
    of it is repeated.
    """
    head = rest_got[: 2 * SURE_CHARS]
    found = wanted.rfind(head, 0, at + len(head) - 1) if len(head) >= SURE_CHARS else -1
    return found >= 0
