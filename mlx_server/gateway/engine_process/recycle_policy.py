"""Decide when a healthy engine is replaced, because it holds too much memory or is old. Pure.

Memory that Metal leaks is freed only when the process ends, and requests continue in the next engine. An
engine is not replaced for its memory soon after its start: if a new engine grows as fast as the last one,
replacing it would not help.
"""

from __future__ import annotations

from vestal.config.units import format_size

OVER_LIMIT_FACTOR = 1.15
"""The engine's own accounting keeps its memory below its limit. An engine whose memory exceeds the limit by
this factor leaks memory."""

IDLE_WAIT_S = 60.0
"""The longest wait for a busy engine to become idle before it is replaced."""

MIN_AGE_S = 600.0
"""An engine younger than this is not replaced for its memory."""


class RecyclePolicy:
    """Decides when one engine is replaced, which started at `started_at` (monotonic seconds).

    `max_footprint_bytes` is how much memory the engine may hold; None stands for OVER_LIMIT_FACTOR times the
    engine's own limit. `max_age_s` is how old it may become; 0 allows any age.
    """

    def __init__(self, max_footprint_bytes: int | None, max_age_s: float, started_at: float) -> None:
        self._max_footprint_bytes, self._max_age_s = max_footprint_bytes, max_age_s
        self._started_at = started_at
        self._due_since: float | None = None

    def due(self, footprint_bytes: int, limit_bytes: int, busy: bool, now: float) -> str | None:
        """Return why the engine has to be replaced now, or None if it need not be.

        While the engine is `busy` with requests, its replacement is put off by at most IDLE_WAIT_S.
        `footprint_bytes` and `limit_bytes` are from the engine's last report; both are 0 before the first
        report.
        """
        cause = self._cause(footprint_bytes, limit_bytes, now)
        if cause is None:
            self._due_since = None
            return None
        self._due_since = self._due_since or now
        return None if busy and now - self._due_since < IDLE_WAIT_S else cause

    def _cause(self, footprint_bytes: int, limit_bytes: int, now: float) -> str | None:
        age_s = now - self._started_at
        allowed_bytes = self._max_footprint_bytes or int(OVER_LIMIT_FACTOR * limit_bytes)
        if allowed_bytes and footprint_bytes > allowed_bytes and age_s >= MIN_AGE_S:
            held, allowed = format_size(footprint_bytes), format_size(allowed_bytes)
            return f"recycled: it holds {held}, more than {allowed}"
        if self._max_age_s and age_s >= self._max_age_s:
            return f"recycled: it is {age_s / 3600:.1f} hours old"
        return None
