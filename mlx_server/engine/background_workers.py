"""Threads for work that does not use MLX: tokenizing, compiling grammars, reading the prompt cache.

While llguidance compiles a schema, other threads can run. While it reads a model's vocabulary (0.3 s for
49,000 tokens), none can. So `Grammars.read_vocabulary` reads each vocabulary once, before a request needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BackgroundWorker:
    """One thread that runs the submitted jobs in order, and calls `wake` whenever a job has ended."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue `job`. Return a future that holds the job's result or exception."""
        future = self._thread.submit(job)
        future.add_done_callback(lambda _: self._wake())
        return future

    def close(self) -> None:
        """Cancel the jobs that have not begun, and end the thread once the running job is done. Do not wait
        for it.
        """
        self._thread.shutdown(wait=False, cancel_futures=True)


class BackgroundWorkers:
    """The threads for background work, one for each purpose, so that a cache read need not wait for a schema
    that takes a second to compile. Each calls `wake` whenever a job has ended.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.compiler = BackgroundWorker("compiler", wake)
        self.reader = BackgroundWorker("cache-reader", wake)
        self.preloader = BackgroundWorker("cache-preloader", wake)

    def new_tokenizer(self) -> BackgroundWorker:
        """Return a worker that tokenizes for one model. Its single thread tokenizes that model's requests in
        the order in which they were submitted.
        """
        return BackgroundWorker("tokenizer", self.wake)
