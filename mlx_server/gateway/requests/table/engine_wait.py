"""How long a request waits for an engine, if a circuit breaker says when the next one starts. Pure.

Times are monotonic seconds. `trial_at` is when the next engine is started, or was, if a circuit breaker
decides that; otherwise it is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_server.gateway.requests.table.request_lifecycle import RequestLifecycle, RequestPhase

PARKED_WAIT_S = 900.0
"""A breaker opens for 60, 120, 240 and 480 s: a request that ran before waits for four trials of it."""

TRIAL_S = 60.0
"""A request that waited for a trial start also waits this long for its success: an engine's start timeout."""


@dataclass(frozen=True)
class RequestLimits:
    """Bounds of each lane: how many requests run and wait, and how long one waits without an engine.

    A new request waits `max_wait_s`. One that ran before, whose client may have a part of the answer, waits
    `parked_wait_s`.
    """

    max_running: int
    max_queued: int
    max_wait_s: float
    parked_wait_s: float = PARKED_WAIT_S

    def deadline(self, request: RequestLifecycle, no_engine_since: float, trial_at: float | None) -> float:
        """Return until when the request waits for an engine. A new one waits out a trial within its time."""
        since = max(request.waiting_since, no_engine_since)
        deadline = since + self.max_wait_s
        if request.phase is RequestPhase.PARKED or request.was_accepted:
            return max(deadline, since + self.parked_wait_s)
        if trial_at is not None and trial_at <= deadline:
            return max(deadline, trial_at + TRIAL_S)
        return deadline


def next_start(in_s: float) -> str:
    """Return the sentence that tells a client when an engine is started again."""
    return f"It died too often and is started again in {in_s:.0f} s; try again then."
