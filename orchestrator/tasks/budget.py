"""Fit texts into a model's context. Pure.

There is no tokenizer for the models of other servers, so token counts are estimated, rather too high than too
low: a prompt that is cut a little too early is answered, but one that overflows is refused or silently cut.
"""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE_TOKENS = 64  # what a chat template adds to two messages
SAFETY = 0.9  # the estimate is 1.4 times too high for prose, but 0.93 times for dense numbers (smollm2)
CUT_MARK = " […]"


def tokens(text: str) -> float:
    """Estimate the number of tokens of the text, usually not below what a byte-pair tokenizer produces.

    Three ASCII letters or spaces count as one token. Each digit and sign counts as one, because small models
    split numbers. Other scripts count two thirds of their UTF-8 bytes.
    """
    letters = sum(map(str.isalpha, filter(str.isascii, text))) + text.count(" ")
    plain = sum(map(str.isascii, text))
    foreign_bytes = len(text.encode("utf-8", "replace")) - plain
    return letters / 3 + (plain - letters) + foreign_bytes * 2 / 3


def cut(text: str, max_tokens: float) -> str:
    """Return the text, or as much of its beginning as fits into `max_tokens`, with a mark at the cut."""
    if tokens(text) <= max_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens(text[:middle] + CUT_MARK) <= max_tokens else (low, middle - 1)
    return text[:low] + CUT_MARK if low else ""


def fitting(texts: Sequence[str], max_tokens: float, min_tokens: float = 32) -> list[str]:
    """Return as many of the first texts as fit into `max_tokens` together. The last one is cut, or left out
    if fewer than `min_tokens` tokens of it would remain.
    """
    kept, remaining = [], max_tokens
    for text in texts:
        if remaining < min(min_tokens, tokens(text)):
            break
        kept.append(cut(text, remaining))
        remaining -= tokens(kept[-1])
    return kept


def shared(texts: Sequence[str], max_tokens: float) -> list[str]:
    """Return all texts, with the longest ones cut so that together they fit into `max_tokens`. Short texts
    leave room to the others.
    """
    remaining, kept = max_tokens, dict[int, str]()
    by_size = sorted(range(len(texts)), key=lambda place: tokens(texts[place]))
    for done, place in enumerate(by_size):
        kept[place] = cut(texts[place], remaining / (len(texts) - done))
        remaining -= tokens(kept[place])
    return [kept[place] for place in range(len(texts))]


def room(context_tokens: int, answer_tokens: int) -> tuple[int, int]:
    """Divide a context of `context_tokens` tokens between the messages and the answer, and return how many
    tokens each of the two may take. The answer gets `answer_tokens`, but at most half of the context. The
    messages get less than the rest, because token counts are estimates, and the chat template adds tokens.
    """
    answer = max(1, min(answer_tokens, context_tokens // 2))
    return max(1, int((context_tokens - answer) * SAFETY) - TEMPLATE_TOKENS), answer
