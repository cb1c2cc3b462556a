"""Calls to the LLMs in Ollama's dialect, each sent to a healthy backend that has the model."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import aiohttp

from .cycle import Backend, canonical
from .errors import BackendFailed, BackendUnavailable, EmptyAnswer, ModelMissing, RequestRejected
from .llm_health import HealthBoard
from .text import sound

# A generation on a busy machine is slow, and the gateway holds a request while its engine restarts.
CHAT_TIMEOUT = aiohttp.ClientTimeout(total=900, connect=2, sock_read=300)
EMBED_TIMEOUT = aiohttp.ClientTimeout(total=180, connect=2)


class LlmClient:
    """Chat and embeddings; at most `max_concurrent` calls at once, whoever makes them."""

    def __init__(self, session: aiohttp.ClientSession, board: HealthBoard, max_concurrent: int) -> None:
        self._session = session
        self._board = board
        self._places = asyncio.Semaphore(max_concurrent)

    async def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        """The model's answer to the messages; EmptyAnswer where there is none."""
        body = {
            "model": model,
            "messages": messages,
            "stream": False,
            "options": {"temperature": 0, "repeat_penalty": 1.1, "num_predict": max_tokens},
        }
        backend, reply = await self._post(model, "/api/chat", body, CHAT_TIMEOUT)
        message = reply.get("message")
        text = str(message.get("content") or "").strip() if isinstance(message, dict) else ""
        text = sound(text)
        if not text:
            raise EmptyAnswer(f"{backend.name} answered 200 with no text; its GPU context may be gone.")
        return text

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """One unit-length vector a text, in order; a zero or non-finite one is a failure."""
        body = {"model": model, "input": texts, "truncate": True}
        backend, reply = await self._post(model, "/api/embed", body, EMBED_TIMEOUT)
        vectors = reply.get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise EmptyAnswer(
                f"{backend.name} was given {len(texts)} texts and returned no vector for some of them."
            )
        return [_unit(backend, vector) for vector in vectors]

    async def _post(
        self, model: str, path: str, body: dict[str, Any], timeout: aiohttp.ClientTimeout
    ) -> tuple[Backend, dict[str, Any]]:
        async with self._places:
            backend = await self._choose(model)
            try:
                async with self._session.post(
                    self._board.urls[backend.name] + path, json=body, timeout=timeout
                ) as reply:
                    return backend, await _checked(backend, reply)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                detail = str(error) or type(error).__name__
                self._board.report_failure(backend.name, f"{path}: {detail}")
                raise BackendUnavailable(f"{backend.name} did not answer {path}: {detail}.") from error

    async def _choose(self, model: str) -> Backend:
        serving = await self._board.serving(model)
        if serving is not None:
            return serving
        backends = self._board.backends
        healthy = [b for b in backends if b.used and b.healthy]
        if not healthy:
            states = "; ".join(f"{b.name}: {b.detail or 'down'}" for b in backends if b.used)
            raise BackendUnavailable(f"no LLM backend is healthy ({states}).")
        have = ", ".join(sorted(set().union(*(b.models for b in healthy)))) or "none"
        raise ModelMissing(f"no healthy backend has {canonical(model)}; there are: {have}.")


async def _checked(backend: Backend, reply: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        body = await reply.json(content_type=None)
    except ValueError:
        body = None
    if reply.status == 200 and isinstance(body, dict):
        return body
    said = body.get("error") if isinstance(body, dict) else None
    sentence = f"{backend.name} answers {reply.status}: {said or 'no reason given'}"
    if 400 <= reply.status < 500 and reply.status not in (404, 408, 429):
        raise RequestRejected(sentence)
    raise BackendFailed(sentence)


def _unit(backend: Backend, vector: Any) -> list[float]:
    try:
        length = math.sqrt(math.fsum(x * x for x in vector))
    except (TypeError, OverflowError):
        length = math.nan
    if not math.isfinite(length) or length == 0:
        raise EmptyAnswer(f"{backend.name} returned a vector that is empty, zero or not finite.")
    return [x / length for x in vector]
