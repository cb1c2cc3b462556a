"""Refuse a text that is far longer than the context, before all of it is tokenized. Pure.

A tokenizer takes 1 to 5 s for a megabyte, and reports no progress. For the 32 megabytes that a request body
may hold, it would take over a minute. All streams would stand still, and the supervisor regards an engine
that is silent for that long as wedged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.protocol import Generate

CHUNK_CHARS = 128 * 1024
"""A prompt of at most this many characters is not checked, because tokenizing it takes little time."""

MAX_COUNTED_TOKENS = 500_000
"""If a request only counts tokens, its text may have this many tokens even if the context is shorter."""


def check_length(op: Generate, texts: Iterable[str], tokenizer: Any, context_tokens: int) -> None:
    """Raise RequestError (`context_exceeded`) if a lower bound of the number of tokens in `texts` exceeds the
    context. Texts of up to CHUNK_CHARS characters in total are not checked.

    A request that only counts tokens may have MAX_COUNTED_TOKENS tokens. Raises RequestError
    (`invalid_request`) if the tokenizer fails to tokenize the texts.
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
    """Return the error for a `subject`, such as "the prompt", that is longer than the context.

    `counted` is its number of tokens in words; "" stands for the number `prompt_tokens`. Clients recognize
    the error by its text: Ollama's by "input length exceeds the context length", Claude Code by "prompt is
    too long: 9 tokens > 5 maximum".
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
    """Return the texts of which the prompt of `op` consists: prompt, suffix, contents of messages, and tools
    as JSON.
    """
    contents = [str(message.get("content") or "") for message in op.messages or ()]
    return [op.prompt or "", op.suffix or "", *contents, *(json.dumps(tool) for tool in op.tools or ())]


def min_token_count(texts: Iterable[str], count: Callable[[str], int], limit: int) -> int:
    """Return a lower bound of the number of tokens in `texts`; 0 if they are so short that they need not be
    counted.

    `count` returns the number of tokens of one text. Counting stops once the number exceeds `limit`. Texts
    are counted in chunks. Each chunk counts as one token less than it has, because a cut may split a token in
    two.
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
    """Return the error for a text for which the tokenizer has raised `error`."""
    return RequestError("invalid_request", f"The text cannot be split into tokens: {error}")
