"""How much text fits into a model's context. Pure.

No tokenizer is at hand for the models of other hosts, so tokens are estimated, on the safe side: a prompt
that is cut a little too early is answered, one that overflows is refused (or, by some servers, cut
silently).
"""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE_TOKENS = 64  # a chat template's own words, for the two messages that are sent
SURE = 0.9  # of the estimate: over prose it is 1.4 times too high, over dense numbers 0.93 times (smollm2)
CUT = " […]"


def tokens(text: str) -> float:
    """At least as many tokens as a byte-pair tokenizer makes of the text, as a rule.

    Letters come 3 to a token, digits and signs one by one (small models split numbers), other scripts at two
    thirds of their UTF-8 bytes.
    """
    letters = sum(map(str.isalpha, filter(str.isascii, text))) + text.count(" ")
    plain = sum(map(str.isascii, text))
    foreign_bytes = len(text.encode("utf-8", "replace")) - plain
    return letters / 3 + (plain - letters) + foreign_bytes * 2 / 3


def cut(text: str, most_tokens: float) -> str:
    """The text, or as much of its beginning as fits, with a mark where it was cut."""
    if tokens(text) <= most_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens(text[:middle] + CUT) <= most_tokens else (low, middle - 1)
    return text[:low] + CUT if low else ""


def fitting(texts: Sequence[str], most_tokens: float, least_tokens: float = 32) -> list[str]:
    """The first texts that fit together, the last one cut; left out where too little of it would stay."""
    kept, left = [], most_tokens
    for text in texts:
        if left < min(least_tokens, tokens(text)):
            break
        kept.append(cut(text, left))
        left -= tokens(kept[-1])
    return kept


def shared(texts: Sequence[str], most_tokens: float) -> list[str]:
    """All of the texts, the long ones cut so that together they fit; what a short one leaves, others get."""
    left, kept = most_tokens, dict[int, str]()
    by_size = sorted(range(len(texts)), key=lambda place: tokens(texts[place]))
    for done, place in enumerate(by_size):
        kept[place] = cut(texts[place], left / (len(texts) - done))
        left -= tokens(kept[place])
    return [kept[place] for place in range(len(texts))]


def room(context_tokens: int, answer_tokens: int) -> tuple[int, int]:
    """(tokens for the messages, tokens for the answer); of a small context the answer gets half at most."""
    answer = max(1, min(answer_tokens, context_tokens // 2))
    return max(1, int((context_tokens - answer) * SURE) - TEMPLATE_TOKENS), answer
