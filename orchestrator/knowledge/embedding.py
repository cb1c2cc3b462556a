"""Embed texts and store the vectors, in batches as large as memory allows.

Each batch is stored at once. If the backend refuses a batch (4xx), the batch is halved again and again, until
each refused text is alone. Refused texts get no vector; all others do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator import memory_guard
from orchestrator.errors import RequestRejected
from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.vectors import VectorCache

HARMLESS_TEXT = "hello"
MAX_REFUSALS = 500  # per update; one bad text among 32 causes six. Beyond this, batches are not halved


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

    A batch has at most `max_batch` texts, and fewer while memory is short: `memory_fraction` returns the used
    share (0 to 1) of the container's memory limit.
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
        self._refusals = 0

    def begin(self) -> None:
        """Begin a new update of the knowledge: reset the count of batches that the backend has refused."""
        self._refusals = 0

    async def embed(self, texts: list[str]) -> Embedded:
        """Embed those of `texts` that have no stored vector, and store the vectors. Return how many texts
        were embedded, and which the backend refused.

        Raises Stopped if memory is too full for another batch, BackendError if the backend fails, and
        DatabaseFailed if the database fails. The vectors of earlier batches are then stored already.
        """
        missing = await asyncio.to_thread(self._vectors.without_vector, texts, self._model)
        result, done = Embedded(), 0
        while done < len(missing):
            batch = missing[done : done + self._size()]
            await self._batch(batch, result)
            done += len(batch)
        return result

    def _size(self) -> int:
        fraction = self._memory_fraction()
        size = memory_guard.batch_size(self._max_batch, fraction)
        if size == 0:
            raise Stopped(f"memory is at {fraction:.0%} of the limit")
        return size

    async def _batch(self, batch: list[str], result: Embedded) -> None:
        try:
            vectors = await self._client.embed(self._model, batch)
        except RequestRejected as error:
            await self._refused(batch, error, result)
            return
        await asyncio.to_thread(self._vectors.keep, self._model, batch, vectors)
        result.count += len(batch)

    async def _refused(self, batch: list[str], error: RequestRejected, result: Embedded) -> None:
        if self._refusals == 0:
            await self._client.embed(
                self._model, [HARMLESS_TEXT]
            )  # if this is refused too, the texts are not the cause
        self._refusals += 1
        if len(batch) == 1 or self._refusals > MAX_REFUSALS:
            result.refused |= dict.fromkeys(batch, error.message)
            return
        middle = len(batch) // 2
        await self._batch(batch[:middle], result)
        await self._batch(batch[middle:], result)
