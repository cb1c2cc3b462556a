"""Threads beside MLX's, for work that touches no MLX: grammars are compiled, blocks of the cache are read.

llguidance lets other threads run while it compiles a schema, but not while it reads a vocabulary. That takes
0.3 s for 49,000 tokens, in two pieces, once a model: `Grammars.prepare` does it before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BackgroundWorker:
    """One thread, first come first served. `wake` is called in it after each job."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """The result of `job`, to come. What it raises is raised where the result is asked for."""
        future = self._thread.submit(job)
        future.add_done_callback(lambda _: self._wake())
        return future


class BackgroundWorkers:
    """The threads there are: a schema that takes a second to compile does not hold up the cache."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.compiler = BackgroundWorker("compiler", wake)
        self.reader = BackgroundWorker("cache-reader", wake)
