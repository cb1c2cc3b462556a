"""Read cached prompts from disk into RAM while the engine has time, so that later requests need not wait for
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from mlx_server.engine.background_workers import BackgroundWorker
from mlx_server.engine.prompt_cache.store import BlockStore

MEMORY_SHARE = 0.25
"""The share of the free memory that one part may take. The rest is left to requests and models."""

START_AFTER_S = 0.25
"""How many seconds to wait before the first part. Requests to be resumed after another engine's death arrive
within this time. They go first, because they need the processor to read their own prompts."""


class PromptPreloading:
    """Reads the keys and values of cached prompts from disk into RAM, a part at a time, on the thread
    `worker`. A part takes at most MEMORY_SHARE of `free_bytes()`, the bytes of memory that are not reserved.

    Only the MLX thread may use a PromptPreloading. The worker has no other jobs, and wakes the MLX thread
    after each part.
    """

    def __init__(self, store: BlockStore, worker: BackgroundWorker, free_bytes: Callable[[], int]) -> None:
        self._store, self._worker, self._free_bytes = store, worker, free_bytes
        self._job: Future[None] | None = None  # the pause, or the part that is being read
        self._has_paused = False

    def advance(self) -> None:
        """Begin to read the next part of the cached prompts from disk on the background thread. Do nothing if
        the thread still reads a part, or nothing is left to read. Before the first part, the thread waits for
        START_AFTER_S seconds, so that requests to be resumed go first.
        """
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
