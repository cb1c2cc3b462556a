"""The thread that writes the answers' files: when it writes, and which jobs it runs after it has written.

What is written, and into which files, is the matter of `writer`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

GATHER_S = 0.05
"""How long records are collected before they are written, because waking the thread and writing take as long
for one token as for several."""

RETRY_S = 1.0
"""How long after a failure, such as a full disk, the thread waits before it tries to write again."""


class WritingThread:
    """A thread that calls `write` some GATHER_S seconds after `notify` was called, and RETRY_S seconds after
    `write` has returned False, which means that it failed. Jobs run in this thread, too, in the order of
    `put`; each runs after `write`. Neither `write` nor a job may raise.

    All public methods can be called from any thread, and none of them waits.
    """

    def __init__(self, write: Callable[[], bool]) -> None:
        self._write = write
        self._notified = False
        self._jobs: list[Callable[[], None]] = []
        self._is_closed = False
        self._lock = threading.Lock()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes the thread at once
        self._asleep = False
        threading.Thread(target=self._run, name="answer-log-writer", daemon=True).start()

    def notify(self) -> None:
        """Have `write` called soon, because there is something to write."""
        with self._lock:
            self._notified = True
            was_asleep, self._asleep = self._asleep, False
        if was_asleep:
            self._bell.put(None)

    def put(self, job: Callable[[], None]) -> bool:
        """Have `job` run at once, after another call of `write`. Return False, and do nothing, after the
        thread has ended.
        """
        with self._lock:
            if self._is_closed:
                return False
            self._jobs.append(job)
            self._asleep = False
        self._bell.put(None)
        return True

    def close(self, last: Callable[[], None]) -> bool:
        """End the thread after a last call of `write`, after which the queued jobs run, and then `last`.
        Return False, and do nothing, if the thread has already ended.

        The end is a job. If it were a flag, the thread could end before it has run `last`.
        """
        return self.put(lambda: self._end(last))

    # --- in the thread ---

    def _end(self, last: Callable[[], None]) -> None:
        """Accept no further jobs, and run those that are still queued, since somebody may wait for them."""
        with self._lock:
            self._is_closed = True
            late, self._jobs = self._jobs, []
        for job in late:
            job()
        last()

    def _run(self) -> None:
        idle, retry_at_s = True, 0.0
        while not self._is_closed:
            self._wait(idle, max(GATHER_S, retry_at_s - time.monotonic()))
            with self._lock:
                notified, self._notified = self._notified, False
                jobs, self._jobs = self._jobs, []
            if not self._write():
                retry_at_s = time.monotonic() + RETRY_S
                with self._lock:
                    self._notified = True
            for job in jobs:
                job()
            idle = not (notified or jobs)

    def _wait(self, idle: bool, gather_s: float) -> None:
        """Let the thread wait for work. If `idle`, which means that the last wait found no work, first wait
        without a limit until there is something to write or a job to run. Then wait `gather_s` seconds, in
        which more bytes may arrive, or until a job arrives.

        While bytes keep coming, `idle` is False. The thread then looks for bytes every `gather_s` seconds, so
        the event loop need not wake it.
        """
        if idle:
            with self._lock:
                self._asleep = not (self._notified or self._jobs)
            if self._asleep:
                self._bell.get()
        if not self._jobs:
            with suppress(queue.Empty):
                self._bell.get(timeout=gather_s)
