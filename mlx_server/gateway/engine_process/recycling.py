"""When an engine is replaced before it fails: it has grown past what it may hold, or is old. Pure.

Metal's leaks are cured by a new process and by nothing else, and requests go on across it. But a new engine
that grows as fast is not replaced again and again: what does not help is said, and left.
"""

from __future__ import annotations

OVER_LIMIT = 1.15
"""The engine's own ledger keeps it below its limit; so far above it, something leaks."""

IDLE_PATIENCE_S = 60.0
"""A busy engine is given so long to become idle."""

NOT_BEFORE_S = 600.0
"""So long after its start an engine is left alone, whatever it holds."""


class Recycling:
    """One engine's account. `above_bytes` None: OVER_LIMIT times its own limit; `after_s` 0: never."""

    def __init__(self, above_bytes: int | None, after_s: float, started_at: float) -> None:
        self._above_bytes, self._after_s = above_bytes, after_s
        self._started_at = started_at
        self._due_since: float | None = None

    def due(self, footprint_bytes: int, limit_bytes: int, busy: bool, now: float) -> str | None:
        """Why it is to be replaced now; None where it is not."""
        cause = self._cause(footprint_bytes, limit_bytes, now)
        if cause is None:
            self._due_since = None
            return None
        self._due_since = self._due_since or now
        return None if busy and now - self._due_since < IDLE_PATIENCE_S else cause

    def _cause(self, footprint_bytes: int, limit_bytes: int, now: float) -> str | None:
        age_s = now - self._started_at
        above = self._above_bytes or int(OVER_LIMIT * limit_bytes)
        if above and footprint_bytes > above and age_s >= NOT_BEFORE_S:
            return f"recycled: it holds {_gib(footprint_bytes)}, more than {_gib(above)}"
        if self._after_s and age_s >= self._after_s:
            return f"recycled: it is {age_s / 3600:.1f} hours old"
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
