"""A thread for slow work on the disk, which does its jobs in the order of their arrival.

`DiskTier` decides what is written, and passes jobs to this thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from mlx_server.engine.log import log_event

Job = Callable[[], None]


class WriteBehind:
    """The writing thread and its queue. Waiting jobs hold at most `limit_bytes`; further jobs are refused."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Job, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="prompt-cache-writer", daemon=True)
        self._thread.start()

    def put(self, job: Job, size: int = 0) -> bool:
        """Queue a job that holds `size` bytes until it is done.

        Return False if the waiting jobs would hold too many bytes. An exception that the job raises is
        logged.
        """
        with self._lock:
            if size and self._waiting_bytes + size > self._limit_bytes:
                return False
            self._waiting_bytes += size
        self._jobs.put((job, size))
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until all queued jobs are done. Return False if that takes more than `timeout_s` seconds."""
        done = threading.Event()
        self._jobs.put((done.set, 0))
        return done.wait(timeout_s)

    def close(self) -> None:
        """End the thread once all queued jobs are done. Do not wait for it."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, size = entry
            try:
                job()
            except Exception as error:  # the next job may succeed
                log_event("cache_write_failed", cause=f"{type(error).__name__}: {error}")
            finally:
                with self._lock:
                    self._waiting_bytes -= size
