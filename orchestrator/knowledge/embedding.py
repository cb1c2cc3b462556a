"""Texts into kept vectors: in batches that the memory allows, around texts that the backend refuses.

Each batch is kept as soon as it is made. One that is refused (4xx: asking again will not help) is halved
until the texts that are at fault stand alone; they go without a vector, and the rest have theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator import memory_guard
from orchestrator.errors import RequestRejected
from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.vectors import VectorCache

HARMLESS = "hello"
MOST_REFUSALS = 500  # in one update (one text among 32 takes six); past it, batches are not halved


class Stopped(Exception):
    """The update cannot go on; its text says why."""


@dataclass
class Embedded:
    """How many texts got a vector, and those that the backend refused, with its words."""

    count: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class Embedding:
    """For one update at a time."""

    def __init__(
        self,
        vectors: VectorCache,
        client: Embedder,
        model: str,
        most: int,
        memory_fraction: Callable[[], float],
    ) -> None:
        self._vectors = vectors
        self._client = client
        self._model = model
        self._most = most
        self._memory_fraction = memory_fraction
        self._refusals = 0

    def begin(self) -> None:
        """A new update: its refusals are counted anew."""
        self._refusals = 0

    async def embed(self, texts: list[str]) -> Embedded:
        """Vectors for those of the texts that have none; raises Stopped or BackendError."""
        missing = await asyncio.to_thread(self._vectors.without_vector, texts, self._model)
        result, done = Embedded(), 0
        while done < len(missing):
            batch = missing[done : done + self._size()]
            await self._batch(batch, result)
            done += len(batch)
        return result

    def _size(self) -> int:
        fraction = self._memory_fraction()
        size = memory_guard.batch_size(self._most, fraction)
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
            await self._client.embed(self._model, [HARMLESS])  # refused too, it is not the texts' fault
        self._refusals += 1
        if len(batch) == 1 or self._refusals > MOST_REFUSALS:
            result.refused |= dict.fromkeys(batch, error.message)
            return
        middle = len(batch) // 2
        await self._batch(batch[:middle], result)
        await self._batch(batch[middle:], result)
