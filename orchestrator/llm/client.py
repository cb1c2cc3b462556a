"""Call the models, mostly through Ollama's API. Each call goes to a healthy backend that has the model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import aiohttp

from orchestrator.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    BatchTimedOut,
    EngineCrashed,
    MachineTooSmall,
    ModelMissing,
    OnlyThought,
    RequestRejected,
)
from orchestrator.llm.backend import Backend, canonical
from orchestrator.llm.chat_stream import ChatStream
from orchestrator.llm.check import CHECK_TIMEOUT, is_unreachable
from orchestrator.llm.health import HealthBoard
from orchestrator.llm.json_body import json_of
from orchestrator.llm.liveness import SilenceLimits
from orchestrator.llm.replies import checked, context_length, scores_of, text_of, vectors_of
from orchestrator.llm.stream_timeout import StreamTimeout
from vestal.tracing import HEADER, present_traceparent

CHAT_TIMEOUT = aiohttp.ClientTimeout(
    total=3600, connect=2
)  # `liveness` decides earlier whether the backend hangs
LIMITS = SilenceLimits()
LIVENESS_TIMEOUT = aiohttp.ClientTimeout(total=5)
OLLAMA_CONTEXT_TOKENS = 4096  # Ollama's default context; it drops the rest of a longer prompt
THINKING_TOKENS = 2048  # besides the answer's, for a model whose thinking cannot be switched off (gpt-oss)
EMBED_TIMEOUT = aiohttp.ClientTimeout(total=180, connect=2)
RERANK_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=2)
RERANKING_KIND = "mlx"  # Ollama has no reranking
CRASHED_S = 60.0  # after a crash, the call that is sent again goes to another backend, if one has the model
SEARCH_SLOTS = 4  # a person waits for a search at most 10 s, and answers may take hours

T = TypeVar("T")
Use = Callable[[Backend], Awaitable[T]]


class LlmClient:
    """Provides chat, embeddings and reranking. At most `max_concurrent` calls run at the same time. Embedding
    a single text and reranking, which a search needs, are not counted among them and do not wait for them: up
    to SEARCH_SLOTS of these short calls run in addition.
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
        self._search_slots = asyncio.Semaphore(SEARCH_SLOTS)
        self._always_think: set[str] = set()  # models that thought although they were asked not to
        self._contexts: dict[tuple[str, str], int] = {}

    async def chat(
        self, model: str, messages: list[dict[str, str]], max_tokens: int, context_tokens: int = 0
    ) -> str:
        """Return the model's answer. Raises EmptyAnswer if the answer is empty, OnlyThought if the model
        gives none because it thinks too long, and another BackendError if no backend can give one.

        `context_tokens` is the context to request, 0 for the backend's default. The answer is streamed, so
        that a backend without progress is abandoned and a slow one is not.

        The model is asked not to think, since the thinking counts among `max_tokens`. If a model thinks all
        the same, and too long to answer, it gets THINKING_TOKENS more, in this call and in all later ones.
        """
        more = THINKING_TOKENS if canonical(model) in self._always_think else 0
        try:
            return await self._chat(model, messages, max_tokens + more, context_tokens)
        except OnlyThought as error:
            if more or not error.cut_off:
                raise
        self._always_think.add(canonical(model))
        return await self._chat(model, messages, max_tokens + THINKING_TOKENS, context_tokens)

    async def _chat(
        self, model: str, messages: list[dict[str, str]], max_tokens: int, context_tokens: int
    ) -> str:
        # Ollama reloads a model for another context length, so send one only if it exceeds the default.
        context = {"num_ctx": context_tokens} if context_tokens > OLLAMA_CONTEXT_TOKENS else {}
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "think": False,  # Ollama and the gateway accept this for models that cannot think, too
            "options": {"temperature": 0, "repeat_penalty": 1.1, "num_predict": max_tokens, **context},
        }
        return await self._call(model, "/api/chat", lambda backend: self._streamed(backend, body))

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """Return one vector of unit norm per text, in order.

        Raises EmptyAnswer if a vector is missing, zero or not finite, BatchTimedOut if a living backend does
        not embed several texts in time, and another BackendError if no backend can embed the texts.
        """
        body = {"model": model, "input": texts, "truncate": True}
        several = len(texts) > 1

        async def vectors(backend: Backend) -> list[list[float]]:
            reply = await self._reply(backend, "/api/embed", body, EMBED_TIMEOUT, several)
            return vectors_of(backend, reply, len(texts))

        return await self._call(model, "/api/embed", vectors, is_short=not several)

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        """Return one score per document, in order; a higher score means that the document answers the query
        better.

        Raises EmptyAnswer if a score is missing or not finite, and another BackendError if no backend can
        score the documents.
        """
        body = {"model": model, "query": query, "documents": documents, "return_documents": False}

        async def scores(backend: Backend) -> list[float]:
            reply = await self._reply(backend, "/v1/rerank", body, RERANK_TIMEOUT)
            return scores_of(backend, reply, len(documents))

        return await self._call(model, "/v1/rerank", scores, RERANKING_KIND, is_short=True)

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

        async def call() -> ChatStream:
            stream = ChatStream(backend.name)
            async with self._post(backend, "/api/chat", body, CHAT_TIMEOUT) as reply:
                if reply.status != 200:
                    await checked(backend, reply)
                async for data in reply.content.iter_any():
                    if stream.take(data):
                        timeout.received()
            return stream

        return text_of(backend, body["model"], await timeout.watch(call()))

    async def _reply(
        self,
        backend: Backend,
        path: str,
        body: dict[str, Any],
        timeout: aiohttp.ClientTimeout,
        fewer_may_do: bool = False,
    ) -> dict[str, Any]:
        """Return the JSON object that the backend replies. Raises BackendUnavailable if the backend is alive
        but does not reply in time (BatchTimedOut if `fewer_may_do`, because the request could be divided),
        TimeoutError if it is not alive, and another BackendError if it refuses the request.
        """
        try:
            async with self._post(backend, path, body, timeout) as reply:
                return await checked(backend, reply)
        except aiohttp.ServerTimeoutError:  # there was no connection
            raise
        except TimeoutError as error:
            if not await self._answers(backend):
                raise
            message = f"{backend.name} is alive, but did not answer {path} within {timeout.total:.0f} s."
            raise (BatchTimedOut if fewer_may_do else BackendUnavailable)(message) from error

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

    async def _call(
        self, model: str, path: str, use: Use[T], kind: str | None = None, is_short: bool = False
    ) -> T:
        """Choose a backend of this kind (None: any) that has the model, call `use` with it to send the
        request, and return what `use` returns. If the backend's machine is too small for the request, call
        the other backends, one after the other. Raises BackendError if no backend can be called or the call
        fails; its message names `path`, the request's path, if the backend did not answer.

        With `is_short`, the call uses one of the slots for short calls, so that it does not wait until long
        answers are finished.
        """
        async with self._search_slots if is_short else self._slots:
            backend, too_small = await self._take(model, kind), set[str]()
            while True:
                try:
                    return await self._call_backend(backend, model, path, use, kind, too_small)
                except MachineTooSmall as error:
                    too_small.add(backend.name)
                    other = await self._board.take(model, kind, too_small)
                    if other is None and (later := self._able(model, kind, too_small)):
                        waits = f"{error.message} The breaker of {', '.join(later)} is open."
                        raise BackendUnavailable(waits) from error
                    if other is None:
                        raise
                    backend = other

    async def _call_backend(
        self, backend: Backend, model: str, path: str, use: Use[T], kind: str | None, too_small: set[str]
    ) -> T:
        """Send the request to `backend` by calling `use`, return what `use` returns, and record success or
        failure on the health board. Raises BackendError if the call fails; its message names `path` if the
        backend did not answer.

        If the backend is busy and another backend may have room for `model`, the error's `retry_after_s` is
        0. The other backend must be of this `kind` (None: any) and not in `too_small`, the names of the
        backends whose machines are too small for this request.
        """
        try:
            answer = await use(backend)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = str(error) or type(error).__name__
            self._board.failed(backend.name, f"{path}: {detail}", lost=True, gone=is_unreachable(error))
            raise BackendUnavailable(f"{backend.name} did not answer {path}: {detail}.") from error
        except RequestRejected:
            self._board.succeeded(backend.name)  # the request is wrong, not the backend
            raise
        except BackendBusy as error:
            self._board.busy(backend.name, model, error.retry_after_s)
            other = await self._board.serving(model, kind, too_small)
            if other is not None and self._board.is_preferred(other.name, model):
                error.retry_after_s = 0.0  # another backend has room
            raise
        except BatchTimedOut:
            self._board.abandoned(backend.name)  # these texts are too many, fewer may not be
            raise
        except BackendError as error:
            if isinstance(error, EngineCrashed):
                self._board.prefer_others(backend.name, model, CRASHED_S)
            self._board.failed(backend.name, error.message, lost=False)
            raise
        except BaseException:
            self._board.abandoned(backend.name)
            raise
        self._board.succeeded(backend.name)
        return answer

    def _able(self, model: str, kind: str | None, without: Collection[str] = ()) -> list[str]:
        """Return the names of the healthy backends that have the model, also of those whose breaker is open,
        except those in `without`.
        """
        backends = [b for b in self._board.backends if kind in (None, b.kind) and b.name not in without]
        return [b.name for b in backends if b.used and b.healthy and b.serves(model)]

    async def _take(self, model: str, kind: str | None) -> Backend:
        taken = await self._board.take(model, kind)
        if taken is not None:
            return taken
        backends = [b for b in self._board.backends if kind in (None, b.kind)]
        healthy = [b for b in backends if b.used and b.healthy]
        if not healthy:
            states = "; ".join(f"{b.name}: {b.detail or 'down'}" for b in backends if b.used)
            raise BackendUnavailable(f"no LLM backend is healthy ({states}).")
        trial_in_s, able = self._board.seconds_until_trial(), self._able(model, kind)
        if able:
            waits = ", ".join(f"{name} in {max(0.0, trial_in_s.get(name, 0.0)):.0f} s" for name in able)
            raise BackendUnavailable(f"its breaker is open after failures in a row; next trial: {waits}.")
        have = ", ".join(sorted(set().union(*(b.models for b in healthy)))) or "none"
        raise ModelMissing(f"no healthy backend has {canonical(model)}; there are: {have}.")
