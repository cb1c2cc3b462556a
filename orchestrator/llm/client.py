"""Call the models, mostly through Ollama's API. Each call goes to a healthy backend that has the model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import aiohttp

from orchestrator.errors import (
    BackendError,
    BackendFailed,
    BackendUnavailable,
    EmptyAnswer,
    ModelMissing,
    RequestRejected,
)
from orchestrator.llm.backend import Backend, canonical
from orchestrator.llm.chat_stream import ChatStream
from orchestrator.llm.check import CHECK_TIMEOUT, is_unreachable
from orchestrator.llm.health import HealthBoard
from orchestrator.llm.json_body import json_of
from orchestrator.llm.liveness import SilenceLimits
from orchestrator.llm.stream_timeout import StreamTimeout
from orchestrator.unicode import replace_invalid_unicode
from vestal.tracing import HEADER, present_traceparent

CHAT_TIMEOUT = aiohttp.ClientTimeout(
    total=3600, connect=2
)  # `liveness` decides earlier whether the backend hangs
LIMITS = SilenceLimits()
LIVENESS_TIMEOUT = aiohttp.ClientTimeout(total=5)
OLLAMA_CONTEXT_TOKENS = 4096  # Ollama's default context; it drops the rest of a longer prompt
EMBED_TIMEOUT = aiohttp.ClientTimeout(total=180, connect=2)
RERANK_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=2)
RERANKING_KIND = "mlx"  # Ollama has no reranking

T = TypeVar("T")
Use = Callable[[Backend], Awaitable[T]]


class LlmClient:
    """Provides chat, embeddings and reranking. At most `max_concurrent` calls of this process run at the same
    time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        board: HealthBoard,
        max_concurrent: int,
        limits: SilenceLimits = LIMITS,
    ) -> None:
        self._session = session
        self._board = board
        self._limits = limits
        self._slots = asyncio.Semaphore(max_concurrent)
        self._contexts: dict[tuple[str, str], int] = {}

    async def chat(
        self, model: str, messages: list[dict[str, str]], max_tokens: int, context_tokens: int = 0
    ) -> str:
        """Return the model's answer. Raises EmptyAnswer if the answer is empty, and another BackendError if
        no backend can give one.

        `context_tokens` is the context to request, 0 for the backend's default. The answer is streamed, so
        that a backend without progress is abandoned and a slow one is not.
        """
        # Ollama reloads a model for another context length, so send one only if it exceeds the default.
        context = {"num_ctx": context_tokens} if context_tokens > OLLAMA_CONTEXT_TOKENS else {}
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "options": {"temperature": 0, "repeat_penalty": 1.1, "num_predict": max_tokens, **context},
        }
        return await self._call(model, "/api/chat", lambda backend: self._streamed(backend, body))

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """Return one vector of unit norm per text, in order.

        Raises EmptyAnswer if a vector is missing, zero or not finite, and another BackendError if no backend
        can embed the texts.
        """
        body = {"model": model, "input": texts, "truncate": True}

        async def vectors(backend: Backend) -> list[list[float]]:
            async with self._post(backend, "/api/embed", body, EMBED_TIMEOUT) as reply:
                return _vectors(backend, await _checked(backend, reply), len(texts))

        return await self._call(model, "/api/embed", vectors)

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        """Return one score per document, in order; a higher score means that the document answers the query
        better.

        Raises EmptyAnswer if a score is missing or not finite, and another BackendError if no backend can
        score the documents.
        """
        body = {"model": model, "query": query, "documents": documents, "return_documents": False}

        async def scores(backend: Backend) -> list[float]:
            async with self._post(backend, "/v1/rerank", body, RERANK_TIMEOUT) as reply:
                return _scores(backend, await _checked(backend, reply), len(documents))

        return await self._call(model, "/v1/rerank", scores, RERANKING_KIND)

    async def context_tokens(self, model: str) -> int | None:
        """Return the model's context length in tokens from `/api/show`; None if it is unknown."""
        backend = await self._board.serving(model)
        if backend is None:
            return None
        key = (backend.name, canonical(model))
        if key not in self._contexts:
            found = await self._ask_context(backend, model)
            if found is None:
                return None
            self._contexts[key] = found
        return self._contexts[key]

    async def _ask_context(self, backend: Backend, model: str) -> int | None:
        try:
            async with self._session.post(
                f"{self._board.urls[backend.name]}/api/show",
                json={"model": model},
                timeout=CHECK_TIMEOUT,
                headers=self._board.headers(backend),
            ) as reply:
                return context_length(await json_of(reply)) if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def _streamed(self, backend: Backend, body: dict[str, Any]) -> str:
        timeout = StreamTimeout(self._limits, lambda: self._answers(backend))

        async def call() -> str:
            stream = ChatStream(backend.name)
            async with self._post(backend, "/api/chat", body, CHAT_TIMEOUT) as reply:
                if reply.status != 200:
                    await _checked(backend, reply)
                async for data in reply.content.iter_any():
                    if stream.take(data):
                        timeout.received()
            return stream.end()

        return _valid_text(backend, await timeout.watch(call()))

    async def _answers(self, backend: Backend) -> bool:
        """Return True if the backend answers a simple request at all."""
        try:
            async with self._session.get(
                f"{self._board.urls[backend.name]}/api/version",
                timeout=LIVENESS_TIMEOUT,
                headers=self._board.headers(backend),
            ):
                return True
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _post(
        self, backend: Backend, path: str, body: dict[str, Any], timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        url, headers = self._board.urls[backend.name] + path, self._board.headers(backend)
        if traceparent := present_traceparent.get():
            headers = {**headers, HEADER: traceparent}
        return self._session.post(url, json=body, timeout=timeout, headers=headers)

    async def _call(self, model: str, path: str, use: Use[T], kind: str | None = None) -> T:
        """Choose a backend of this kind (None: any) that has the model, call `use` with it to send the
        request, and return what `use` returns. Record success or failure on the health board. Raises
        BackendError if no backend can be called or the call fails; `path`, the request's path, is for its
        message.
        """
        async with self._slots:
            backend = await self._take(model, kind)
            try:
                answer = await use(backend)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                detail = str(error) or type(error).__name__
                self._board.failed(backend.name, f"{path}: {detail}", lost=True, gone=is_unreachable(error))
                raise BackendUnavailable(f"{backend.name} did not answer {path}: {detail}.") from error
            except RequestRejected:
                self._board.succeeded(backend.name)  # the request is wrong, not the backend
                raise
            except BackendError as error:
                self._board.failed(backend.name, error.message, lost=False)
                raise
            except BaseException:
                self._board.abandoned(backend.name)
                raise
            self._board.succeeded(backend.name)
            return answer

    async def _take(self, model: str, kind: str | None) -> Backend:
        taken = await self._board.take(model, kind)
        if taken is not None:
            return taken
        backends = [b for b in self._board.backends if kind in (None, b.kind)]
        healthy = [b for b in backends if b.used and b.healthy]
        if not healthy:
            states = "; ".join(f"{b.name}: {b.detail or 'down'}" for b in backends if b.used)
            raise BackendUnavailable(f"no LLM backend is healthy ({states}).")
        trial_in_s, able = self._board.seconds_until_trial(), [b.name for b in healthy if b.serves(model)]
        if able:
            waits = ", ".join(f"{name} in {max(0.0, trial_in_s.get(name, 0.0)):.0f} s" for name in able)
            raise BackendUnavailable(f"its breaker is open after failures in a row; next trial: {waits}.")
        have = ", ".join(sorted(set().union(*(b.models for b in healthy)))) or "none"
        raise ModelMissing(f"no healthy backend has {canonical(model)}; there are: {have}.")


def context_length(shown: Any) -> int | None:
    """Return the context length in `shown`, an answer of `/api/show` (`model_info` has
    `<family>.context_length`); None if it has none.
    """
    model_info = shown.get("model_info") if isinstance(shown, dict) else None
    for name, value in model_info.items() if isinstance(model_info, dict) else ():
        if str(name).endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None


def _valid_text(backend: Backend, said: str) -> str:
    text = replace_invalid_unicode(said.strip())
    if not text:
        raise EmptyAnswer(f"{backend.name} answered 200 with no text; its GPU context may be gone.")
    return text


def _vectors(backend: Backend, reply: dict[str, Any], count: int) -> list[list[float]]:
    vectors = reply.get("embeddings")
    if not isinstance(vectors, list) or len(vectors) != count:
        raise EmptyAnswer(f"{backend.name} was given {count} texts and returned no vector for some of them.")
    return [_unit(backend, vector) for vector in vectors]


def _scores(backend: Backend, reply: dict[str, Any], count: int) -> list[float]:
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


async def _checked(backend: Backend, reply: aiohttp.ClientResponse) -> dict[str, Any]:
    body = await json_of(reply)
    if reply.status == 200 and isinstance(body, dict):
        return body
    said = body.get("error") if isinstance(body, dict) else None
    said = said.get("message") if isinstance(said, dict) else said
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
