"""Read cached prompts from disk into memory while the engine has time, so that later requests need not wait
for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from mlx_server.engine.background_workers import BackgroundWorker
from mlx_server.engine.prompt_cache.store import BlockStore

MEMORY_SHARE = 0.25
"""The share of the free memory that one part may take. The rest is left to requests and models."""

START_AFTER_S = 0.25
"""How many seconds no request may run before a part is read. Requests to be resumed after another engine's
death arrive within this time, all at once, and the next turn of a conversation often follows the last one.
They go first, because they need the processor for their own prompts.
"""


class PromptPreloading:
    """Reads the keys and values of cached prompts from disk into RAM, a part at a time, on the thread
    `worker`. A part takes at most MEMORY_SHARE of `free_bytes()`, the bytes of memory that are not reserved.

    Only the MLX thread may use a PromptPreloading. The worker has no other jobs, and wakes the MLX thread
    after each part.
    """

    def __init__(self, store: BlockStore, worker: BackgroundWorker, free_bytes: Callable[[], int]) -> None:
        self._store, self._worker, self._free_bytes = store, worker, free_bytes
        self._job: Future[Callable[[], None] | None] | None = None  # the pause, or a part
        self._is_pausing = False
        self._is_interrupted = threading.Event()
        self._has_rested = self._have_resumed = False

    def advance(self, requests_run: bool) -> None:
        """Begin to read the next part of the cached prompts on the background thread. Do nothing if the
        thread still reads a part, or nothing is left to read. `requests_run` tells whether any request runs.

        A part is read only after no request has run for START_AFTER_S seconds, because requests need the
        processor for their own prompts. The prompt that was used last is an exception: it is also read while
        a request runs. The requests that are resumed after another engine's death arrive together, so once
        one of them runs, they all have been prepared.
        """
        if requests_run:
            self._is_interrupted.set()
            self._has_rested, self._have_resumed = False, True
        if self._job is not None:
            if not self._job.done():
                return
            self._end(self._job)
        if not self._store.has_preloads:
            self._has_rested = self._have_resumed = False
        elif self._has_rested or (self._have_resumed and self._store.has_urgent_preloads):
            if job := self._store.preload_job(int(MEMORY_SHARE * self._free_bytes())):
                self._job = self._worker.submit(job)
        elif not requests_run:
            self._is_pausing, self._is_interrupted = True, threading.Event()
            self._job = self._worker.submit(partial(_pause, self._is_interrupted))

    def _end(self, job: Future[Callable[[], None] | None]) -> None:
        self._job = None
        if self._is_pausing:
            self._is_pausing, self._has_rested = False, not self._is_interrupted.is_set()
        elif not job.cancelled() and job.exception() is None and (finish := job.result()) is not None:
            finish()


def _pause(is_interrupted: threading.Event) -> None:
    is_interrupted.wait(START_AFTER_S)
