"""Count the failed writes of this process, and record which files cannot be written at present."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Writes:
    """Counts the failed writes of one kind (`journal`, `log`, …).

    `failed` is their number since the process started, and `error` is the last one's error as text. `failing`
    holds the targets (files or others) whose last write failed. `failing_since` is when `failing` ceased
    to be empty, in seconds since 1970; None while it is empty.
    """

    failed: int = 0
    failing_since: float | None = None
    error: str = ""
    failing: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        return {"failed": self.failed, "failing_since": self.failing_since, "error": self.error}


class WriteFailures:
    """Counts failed writes by kind: `log`, `journal`, `pid_file`, … Any thread may call it.

    `wall` returns the seconds since 1970. A writer may add a function to `retries` that repeats its last
    write if that failed. `as_json` calls these functions first, because a process that writes nothing for a
    while would otherwise report a failure that is over.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._writes: dict[str, _Writes] = {}
        self.retries: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def failed(self, what: str, error: Exception, count: int = 1, *, target: object = "") -> None:
        """Record that writes of the kind `what` to `target` fail with `error`, and add `count` to the number
        of failed writes.

        `count` is 0 if nothing more was lost, such as when a failed write is repeated in vain.
        """
        with self._lock:
            writes = self._writes.setdefault(what, _Writes())
            writes.failed += count
            writes.error = getattr(error, "strerror", None) or str(error)
            writes.failing.add(str(target))
            if writes.failing_since is None:
                writes.failing_since = self._wall()

    def succeeded(self, what: str, *, target: object = "") -> None:
        """Record that the last write of the kind `what` to `target` has succeeded."""
        writes = self._writes.get(what)
        if writes is None or not writes.failing:
            return
        with self._lock:
            writes.failing.discard(str(target))
            if not writes.failing:
                writes.failing_since = None

    def count(self, what: str) -> int:
        """Return how many writes of this kind have failed."""
        writes = self._writes.get(what)
        return writes.failed if writes is not None else 0

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return a dictionary for each kind of write that has ever failed, by kind.

        `failed` is the number of failed writes, and `error` is the last error as text. One kind of write may
        have several targets, such as files. `failing_since` is when the present failure began, in seconds
        since 1970; None if the last write to each target succeeded.
        """
        for retry in self.retries:
            retry()
        with self._lock:
            return {what: writes.as_json() for what, writes in sorted(self._writes.items())}


FAILURES = WriteFailures()
"""The failed writes of this process."""
