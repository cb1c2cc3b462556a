"""Requests that wait for other threads: for a grammar, or for the cache. Lives in the MLX thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.sampling import Processor
from mlx_server.engine.prompt_cache.find import Find, Gathered
from mlx_server.protocol import Generate


@dataclass(frozen=True)
class Prepared:
    """A request that has all it needs but what is to come: its grammar's `processor`, and a `prefix`."""

    op: Generate
    generation: Generation
    processor: Future[Processor | None] | None = None
    prefix: Future[Gathered] | None = None
    find: Find | None = None  # what the prefix is made of

    @property
    def jobs(self) -> list[Future[Any]]:
        return [job for job in (self.processor, self.prefix) if job is not None]

    @property
    def done(self) -> bool:
        return all(job.done() for job in self.jobs)


class Preparing:
    """In order of arrival. A job that fails raises in its future: whoever takes it out learns of it."""

    def __init__(self) -> None:
        self._requests: dict[str, Prepared] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Prepared) -> None:
        self._requests[request.op.id] = request

    @property
    def any_done(self) -> bool:
        return any(request.done for request in self._requests.values())

    def take_done(self) -> Iterator[Prepared]:
        """Those whose jobs have ended; they leave."""
        for request in list(self._requests.values()):
            if request.done:
                yield self._requests.pop(request.op.id)

    def remove(self, request: str) -> Prepared | None:
        """A client has left; None where it is not here. A job that has begun ends for nobody."""
        found = self._requests.pop(request, None)
        if found is not None:
            for job in found.jobs:
                job.cancel()
        return found

    def ids(self) -> list[str]:
        return list(self._requests)

    def clear(self) -> None:
        """Drop all."""
        for request in self.ids():
            self.remove(request)
