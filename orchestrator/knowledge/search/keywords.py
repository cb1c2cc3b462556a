"""The words of a question, as an FTS5 expression that finds any of them. Pure."""

from __future__ import annotations

import re

MOST_WORDS = 16  # each costs as many chunks as it stands in
# They stand in every other chunk: BM25 gives them next to no weight, and they are all the cost.
EVERYDAY = frozenset(
    re.findall(
        r"\w+",
        """a about after all also am an and any are as at be because been before being but by can could did do
    does doing done for from get gets give had has have he her his how i if in into is it its just let like
    make may me might more most much must my no not of on one only or other our out over own say shall she
    should so some such than that the their them then there these they this those to too under until up us
    very was way we were what when where which while who whom whose why will with would you your""",
    )
)


def match_of(question: str) -> str:
    """`"breaker" OR "open"`; empty where the question has no word. Each word is quoted: none is an operator.

    `kv_bits` stays one word here and becomes a phrase there, so a setting's name finds that setting.
    """
    words = list(dict.fromkeys(re.findall(r"\w+", question.lower())))
    telling = [word for word in words if word not in EVERYDAY and word.strip("_")]
    return " OR ".join(f'"{word}"' for word in (telling or words)[:MOST_WORDS])


def names_a_thing(question: str) -> bool:
    """Whether it has a name from a program or a file (`kv_bits`, `mlx.bind`, `HALF_OPEN`, `--json`).

    To a vector such a name is a few syllables; as a word it stands in the few chunks that are meant.
    """
    return re.search(r"\w_\w|\w\.\w|\w::\w|(^|\s)--\w|/\w+/", question) is not None
