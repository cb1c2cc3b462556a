"""Threads for work that does not use MLX: tokenizing, compiling grammars, reading the prompt cache.

llguidance lets other threads run while it compiles a schema, but not while it reads a vocabulary, which takes
0.3 s for 49,000 tokens, once for each model. `Grammars.read_vocabulary` does that ahead of need.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BackgroundWorker:
    """One thread that runs the submitted jobs in order, and calls `wake` after each."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue `job`. Return a future of its result or exception."""
        future = self._thread.submit(job)
        future.add_done_callback(lambda _: self._wake())
        return future

    def close(self) -> None:
        """Cancel the jobs that have not begun, and end the thread once the present job is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class BackgroundWorkers:
    """One thread for each purpose, so that a schema that takes a second to compile does not delay a cache
    read.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.compiler = BackgroundWorker("compiler", wake)
        self.reader = BackgroundWorker("cache-reader", wake)
        self.preloader = BackgroundWorker("cache-preloader", wake)

    def new_tokenizer(self) -> BackgroundWorker:
        """Return a worker that tokenizes for one model. Its single thread keeps that model's requests in
        order.
        """
        return BackgroundWorker("tokenizer", self.wake)
