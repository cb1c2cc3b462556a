"""Embed texts and store the vectors, in batches as large as memory and the backend's speed allow.

Each batch is stored at once. If the backend refuses a batch (4xx), the batch is halved again and again, until
each refused text is alone. If a batch kills the backend's engine, its texts are embedded one by one. Refused
and deadly texts get no vector; all others do. Beyond a number of refusals or of dead engines in one update,
all texts of a refused or deadly batch get none. If the backend is too slow for a batch, the batch is halved,
and the later ones are no larger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator import memory_guard
from orchestrator.errors import BatchTimedOut, EngineCrashed, RequestRejected
from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.vectors import VectorCache

HARMLESS_TEXT = "hello"
MAX_REFUSALS = 500  # per update; one bad text among 32 causes six. Beyond this, batches are not divided
MAX_CRASHES = 4  # per update; each stands for three dead engines, and one bad text among 32 causes two


class Stopped(Exception):
    """Raised if memory is too full to embed another batch of texts, so that the update of the stored
    knowledge ends early. The message says how full it is. A later update embeds the remaining texts.
    """


@dataclass
class Embedded:
    """How many texts were embedded, and the refused texts, each with the backend's reason."""

    count: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class EmbeddingRun:
    """Embeds the texts of an update of the knowledge with `model`, and stores their vectors in `vectors`.
    Only one update may use it at a time.

    A batch has at most `max_batch` texts, and fewer while memory is short or the backend is slow:
    `memory_fraction` returns the used share (0 to 1) of the container's memory limit.
    """

    def __init__(
        self,
        vectors: VectorCache,
        client: Embedder,
        model: str,
        max_batch: int,
        memory_fraction: Callable[[], float],
    ) -> None:
        self._vectors = vectors
        self._client = client
        self._model = model
        self._max_batch = max_batch
        self._memory_fraction = memory_fraction
        self._fast_enough = max_batch
        self._refusals = 0
        self._crashes = 0

    def begin(self) -> None:
        """Begin a new update of the knowledge: reset the counts of batches that the backend has refused, or
        that killed its engine. If the last update needed small batches because the backend was slow, begin
        with batches twice as large.
        """
        self._fast_enough = min(self._fast_enough * 2, self._max_batch)
        self._refusals = 0
        self._crashes = 0

    async def embed(self, texts: list[str]) -> Embedded:
        """Embed those of `texts` that have no stored vector, and store the vectors. Return how many texts
        were embedded, and which the backend refused.

        Raises Stopped if memory is too full for another batch, BackendError if the backend fails, and
        DatabaseFailed if the database fails. The vectors of earlier batches are then stored already.
        """
        missing = await asyncio.to_thread(self._vectors.without_vector, texts, self._model)
        result = Embedded()
        await self._in_batches(missing, result)
        return result

    async def _in_batches(self, texts: list[str], result: Embedded) -> None:
        done = 0
        while done < len(texts):
            batch = texts[done : done + self._size()]
            await self._batch(batch, result)
            done += len(batch)

    def _size(self) -> int:
        fraction = self._memory_fraction()
        size = memory_guard.batch_size(self._max_batch, fraction)
        if size == 0:
            raise Stopped(f"memory is at {fraction:.0%} of the limit")
        return min(size, self._fast_enough)

    async def _batch(self, batch: list[str], result: Embedded) -> None:
        try:
            vectors = await self._client.embed(self._model, batch)
        except BatchTimedOut:
            if len(batch) == 1:
                raise
            self._fast_enough = len(batch) // 2
            await self._in_batches(batch, result)
            return
        except (RequestRejected, EngineCrashed) as error:
            await self._refused(batch, error, result)
            return
        await asyncio.to_thread(self._vectors.keep, self._model, batch, vectors)
        result.count += len(batch)

    async def _refused(
        self, batch: list[str], error: RequestRejected | EngineCrashed, result: Embedded
    ) -> None:
        crashed = isinstance(error, EngineCrashed)
        if self._refusals == 0 or crashed:
            # If this fails too, the texts are not the cause, and the update ends. Its success after a crash
            # keeps the backend's breaker closed, so that the update goes on.
            await self._client.embed(self._model, [HARMLESS_TEXT])
        self._refusals += 1
        self._crashes += crashed
        if len(batch) == 1:
            result.refused[batch[0]] = error.message
            return
        size = 1 if crashed else (len(batch) + 1) // 2
        for start in range(0, len(batch), size):
            if self._are_too_many(crashed):
                result.refused |= dict.fromkeys(batch[start:], error.message)
                return
            await self._in_batches(batch[start : start + size], result)

    def _are_too_many(self, crashed: bool) -> bool:
        """Return True if no more batches may be divided in this update, because too many batches have crashed
        their engine (if `crashed`) or were refused (otherwise).
        """
        return self._crashes > MAX_CRASHES if crashed else self._refusals > MAX_REFUSALS
