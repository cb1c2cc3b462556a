"""Decide how long a request waits for an engine, including while a circuit breaker delays the next start.
Pure.

Times are monotonic seconds. `trial_at` is the time of the circuit breaker's trial start of an engine, which
may be past; it is None while the breaker is closed.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_server.gateway.requests.table.request_lifecycle import RequestLifecycle, RequestPhase

PARKED_WAIT_S = 900.0
"""How long a request that ran before waits. A circuit breaker opens for 60, 120, 240 and 480 s, so that the
request waits for its four trial starts."""

TRIAL_S = 60.0
"""How long a request that waited for a trial start also waits for the start to succeed, which is an engine's
start timeout."""


@dataclass(frozen=True)
class RequestLimits:
    """The limits of each lane: how many of its requests run and wait at most, and how long a request waits
    without an engine. A lane is a class of requests with slots and a queue of its own, such as embeddings.

    A new request waits `max_wait_s`. A request that ran before waits `parked_wait_s`, because its client may
    already have a part of the answer.
    """

    max_running: int
    max_queued: int
    max_wait_s: float
    parked_wait_s: float = PARKED_WAIT_S

    def deadline(self, request: RequestLifecycle, no_engine_since: float, trial_at: float | None) -> float:
        """Return the time until which the request waits for an engine, while there has been none since
        `no_engine_since`.

        `trial_at` is when a circuit breaker, which opens if engines die too often, lets the next engine start
        on trial; None if the breaker is closed. A new request, which has neither run nor been accepted
        before, also waits for the outcome of a trial that begins within its waiting time.
        """
        since = max(request.waiting_since, no_engine_since)
        deadline = since + self.max_wait_s
        if request.phase is RequestPhase.PARKED or request.was_accepted:
            return max(deadline, since + self.parked_wait_s)
        if trial_at is not None and trial_at <= deadline:
            return max(deadline, trial_at + TRIAL_S)
        return deadline


def next_start(in_s: float) -> str:
    """Return a sentence for clients which says that the next engine starts in `in_s` seconds."""
    return f"It died too often and is started again in {in_s:.0f} s; try again then."
