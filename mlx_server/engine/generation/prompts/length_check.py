"""Refuse a text far longer than the context before it is tokenized as a whole. Pure.

A tokenizer takes 1 to 5 s for a megabyte and reports no progress. For the 32 megabytes that a request body
may hold it took over a minute: all streams stood still, and the supervisor regards an engine that is
silent for that long as wedged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.protocol import Generate

CHUNK_CHARS = 128 * 1024
"""A prompt of at most this many characters is not checked: tokenizing it takes little time."""

MAX_COUNTED_TOKENS = 500_000
"""If tokens are only counted, the text may be longer than the context, up to this many tokens."""


def check_length(op: Generate, texts: Iterable[str], tokenizer: Any, context_tokens: int) -> None:
    """Raise RequestError (`context_exceeded`) if long `texts` certainly do not fit into the context.

    Raises RequestError (`invalid_request`) if the tokenizer cannot read them.
    """
    limit = max(context_tokens, MAX_COUNTED_TOKENS) if op.count_only else context_tokens

    def count(text: str) -> int:
        try:
            return len(tokenizer.encode(text, add_special_tokens=False))
        except Exception as error:  # the tokenizer's library raises bare exceptions
            raise tokenization_error(error) from error

    if (tokens := min_token_count(texts, count, limit)) > limit:
        raise context_exceeded(op.model, tokens, context_tokens, counted=f"{tokens} tokens or more")


def context_exceeded(
    model: str,
    prompt_tokens: int,
    context_tokens: int,
    *,
    subject: str = "the prompt",
    counted: str = "",
    remedy: str = "shorten it",
) -> RequestError:
    """Return the error for a `subject` that is too long. `counted` is its number of tokens, in words.

    Clients recognize it by its text: Ollama's by "input length exceeds the context length", Claude Code by
    "prompt is too long: 9 tokens > 5 maximum".
    """
    counted = counted or f"{prompt_tokens} tokens"
    return RequestError(
        "context_exceeded",
        f"The input length exceeds the context length: {subject} is too long: {counted} > {context_tokens} "
        f"maximum for {model}; {remedy}.",
        prompt_tokens=prompt_tokens,
        context_tokens=context_tokens,
    )


def texts_of(op: Generate) -> list[str]:
    """Return the texts that a client has sent for the prompt."""
    contents = [str(message.get("content") or "") for message in op.messages or ()]
    return [op.prompt or "", op.suffix or "", *contents, *(json.dumps(tool) for tool in op.tools or ())]


def min_token_count(texts: Iterable[str], count: Callable[[str], int], limit: int) -> int:
    """Return a lower bound of the number of tokens in `texts`; 0 if they are short, which need no counting.

    `count` returns the tokens of one text. Counting stops beyond `limit`. The texts are counted in chunks,
    each for one token less than it has, because a cut may divide a token in two.
    """
    texts = [text for text in texts if text]
    if sum(map(len, texts)) <= CHUNK_CHARS:
        return 0
    total = 0
    for text in texts:
        for start in range(0, len(text), CHUNK_CHARS):
            total += max(count(text[start : start + CHUNK_CHARS]) - 1, 0)
            if total > limit:
                return total
    return total


def tokenization_error(error: Exception) -> RequestError:
    """Return the error for a text that the tokenizer cannot read."""
    return RequestError("invalid_request", f"The text cannot be split into tokens: {error}")
