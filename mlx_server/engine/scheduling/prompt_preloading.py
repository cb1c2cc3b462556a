"""Read cached prompts from disk into RAM while the engine has time, for the requests that come next."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from mlx_server.engine.background_workers import BackgroundWorker
from mlx_server.engine.prompt_cache.store import BlockStore

MEMORY_SHARE = 0.25
"""The share of the free memory that a slice may take: requests and models need it more."""

START_AFTER_S = 0.25
"""The pause before the first slice. The requests that a dead engine has left come within it, and then go
first: they need the processor for what they read themselves."""


class PromptPreloading:
    """Lets `worker` read cached prompts, one slice after another. `free_bytes` returns the unreserved memory.

    Only the MLX thread may use it. The worker, which does nothing else, wakes that thread after each slice.
    """

    def __init__(self, store: BlockStore, worker: BackgroundWorker, free_bytes: Callable[[], int]) -> None:
        self._store, self._worker, self._free_bytes = store, worker, free_bytes
        self._job: Future[None] | None = None  # the pause, or the slice that is being read
        self._has_paused = False

    def advance(self) -> None:
        """Begin to read the next slice unless one is being read, or the first is not due yet."""
        if self._job is not None and not self._job.done():
            return
        self._job = None
        if not self._store.has_preloads:
            self._has_paused = False
        elif not self._has_paused:
            self._has_paused = True
            self._job = self._worker.submit(partial(time.sleep, START_AFTER_S))
        elif job := self._store.preload_job(int(MEMORY_SHARE * self._free_bytes())):
            self._job = self._worker.submit(job)
