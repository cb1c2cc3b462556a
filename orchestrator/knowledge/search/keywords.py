"""Turn a question into an FTS5 expression that finds any of its words. Pure."""

from __future__ import annotations

import re

MAX_WORDS = 16  # the cost of a word is the number of chunks that contain it
# These stand in every other chunk, so BM25 gives them hardly any weight, and they would cause most of the
# cost.
STOP_WORDS = frozenset(
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
    """Return the FTS5 expression that matches texts with any word of the question; "" for a question without
    words. An example is `"breaker" OR "open"`. The expression has at most MAX_WORDS words, and stop words
    only if the question has no others.

    Each word is quoted, so that none is read as an operator. `kv_bits` stays one quoted word, which FTS5
    reads as a phrase, so a search for a setting's name finds that setting.
    """
    words = list(dict.fromkeys(re.findall(r"\w+", question.lower())))
    significant = [word for word in words if word not in STOP_WORDS and word.strip("_")]
    return " OR ".join(f'"{word}"' for word in (significant or words)[:MAX_WORDS])


def contains_identifier(question: str) -> bool:
    """Return True if the question contains an identifier (`kv_bits`, `mlx.bind`, `HALF_OPEN`, `--json`).

    An embedding captures little of an identifier's meaning, but as a word an identifier occurs only in the
    few relevant chunks.
    """
    return re.search(r"\w_\w|\w\.\w|\w::\w|(^|\s)--\w|/\w+/", question) is not None
