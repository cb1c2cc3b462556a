"""Check what backends reply, and take the answer, the vectors or the scores from it."""

from __future__ import annotations

import math
from typing import Any

import aiohttp

from orchestrator.errors import EmptyAnswer, OnlyThought
from orchestrator.llm.backend import Backend
from orchestrator.llm.chat_stream import ChatStream
from orchestrator.llm.json_body import json_of
from orchestrator.llm.refusals import reply_error
from orchestrator.unicode import replace_invalid_unicode


async def checked(backend: Backend, reply: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the JSON object in a reply. Raises the fitting BackendError if the status is not 200, or the
    body is no JSON object.
    """
    body = await json_of(reply)
    if reply.status == 200 and isinstance(body, dict):
        return body
    raise reply_error(backend.name, reply.status, body, reply.headers.get("Retry-After"))


def text_of(backend: Backend, model: str, stream: ChatStream) -> str:
    """Return the text of an answer whose stream the backend has closed. Raises OnlyThought if there is no
    text but the model thought, EmptyAnswer if there is nothing at all, and BackendFailed if the answer is
    incomplete.
    """
    text = replace_invalid_unicode(stream.end().strip())
    if text:
        return text
    if not stream.thought:
        raise EmptyAnswer(f"{backend.name} answered 200 with no text; its GPU context may be gone.")
    end = "used up the answer's tokens for it" if stream.cut_off else "ended without an answer"
    raise OnlyThought(
        f"{model} on {backend.name} thinks although it is asked not to, and {end}: use another model, whose"
        " thinking can be switched off.",
        stream.cut_off,
    )


def context_length(shown: Any) -> int | None:
    """Return the context length in `shown`, an answer of `/api/show` (`model_info` has
    `<family>.context_length`); None if it has none.
    """
    model_info = shown.get("model_info") if isinstance(shown, dict) else None
    for name, value in model_info.items() if isinstance(model_info, dict) else ():
        if str(name).endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None


def vectors_of(backend: Backend, reply: dict[str, Any], count: int) -> list[list[float]]:
    """Return the `count` vectors of unit norm in a reply of `/api/embed`, in order. Raises EmptyAnswer if a
    vector is missing, zero or not finite.
    """
    vectors = reply.get("embeddings")
    if not isinstance(vectors, list) or len(vectors) != count:
        raise EmptyAnswer(f"{backend.name} was given {count} texts and returned no vector for some of them.")
    return [_unit(backend, vector) for vector in vectors]


def scores_of(backend: Backend, reply: dict[str, Any], count: int) -> list[float]:
    """Return the `count` scores in a reply of `/v1/rerank`, in the order of the documents. Raises EmptyAnswer
    if a score is missing or not finite.
    """
    results = reply.get("results")
    found: dict[int, float] = {}
    for result in results if isinstance(results, list) else ():
        index = result.get("index") if isinstance(result, dict) else None
        score = _finite(result.get("relevance_score")) if isinstance(index, int) else None
        if isinstance(index, int) and score is not None:
            found[index] = score
    if found.keys() != set(range(count)):
        raise EmptyAnswer(f"{backend.name} was given {count} texts and returned no score for some of them.")
    return [found[index] for index in range(count)]


def _finite(value: Any) -> float | None:
    """Return the JSON value as a float; None if it is not a number, or is not finite as a float."""
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # JSON allows whole numbers of any size
        return None
    return number if math.isfinite(number) else None


def _unit(backend: Backend, vector: Any) -> list[float]:
    try:
        length = math.sqrt(math.fsum(x * x for x in vector))
    except (TypeError, OverflowError):
        length = math.nan
    if not math.isfinite(length) or length == 0:
        raise EmptyAnswer(f"{backend.name} returned a vector that is empty, zero or not finite.")
    return [x / length for x in vector]
