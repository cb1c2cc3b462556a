"""Count the writes of this process that failed, and what fails now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Writes:
    """The failed writes of one kind. `failing_since` is None once a write has succeeded again."""

    failed: int = 0
    failing_since: float | None = None
    error: str = ""


class WriteFailures:
    """Counts failed writes by what they were: `log`, `journal`, `pid_file`, … Any thread may call it.

    `wall` returns the seconds since 1970. Before a report, each of `retries` is called, which tries again to
    write what failed: an idle process would else report a failure that is over.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._writes: dict[str, _Writes] = {}
        self.retries: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def failed(self, what: str, error: Exception, count: int = 1) -> None:
        """Add `count` failed writes: 0 for the repetition of a write that is counted already."""
        with self._lock:
            writes = self._writes.setdefault(what, _Writes())
            writes.failed += count
            writes.error = getattr(error, "strerror", None) or str(error)
            if writes.failing_since is None:
                writes.failing_since = self._wall()

    def succeeded(self, what: str) -> None:
        """Note that a write of this kind has succeeded."""
        writes = self._writes.get(what)
        if writes is not None:
            writes.failing_since = None

    def count(self, what: str) -> int:
        """Return how many writes of this kind have failed."""
        writes = self._writes.get(what)
        return writes.failed if writes is not None else 0

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return `failed`, `failing_since` (seconds since 1970, or None) and `error` of each kind that ever
        failed.
        """
        for retry in self.retries:
            retry()
        with self._lock:
            return {what: dict(vars(writes)) for what, writes in sorted(self._writes.items())}


FAILURES = WriteFailures()
"""The failures of this process."""
