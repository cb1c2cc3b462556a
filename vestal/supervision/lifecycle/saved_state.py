"""Convert the state that must outlive a supervisor (breaker, restarts, stop by hand) to JSON and back. Pure.

Monotonic times mean nothing to the next process, so the record holds times since 1970. If the wall clock is
set in between, an open breaker may stay open for less or more time, but never for more than the policy's
maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vestal.supervision.lifecycle.breaker import Breaker, BreakerState
from vestal.supervision.lifecycle.child_state import ChildState


def to_record(child: ChildState, now: float, wall: float) -> dict[str, Any]:
    """Return what the next supervisor must know about the child, for the state store: whether it was stopped
    by hand, its restarts, and its circuit breaker. Monotonic times are converted to Unix times: `now` is the
    monotonic time and `wall` the Unix time of one moment.
    """
    breaker = child.breaker
    # If the supervisor ends during a trial, the next one may make another at once.
    open_s = breaker.until - now if breaker.state is BreakerState.OPEN else 0.0
    return {
        "stopped_by_hand": child.stopped_by_hand,
        "restart_count": child.restarts,
        "breaker": {
            "open": breaker.state is not BreakerState.CLOSED,
            "failures": breaker.failures,
            "opens": breaker.opens,
            "until": wall + open_s,
        },
        "restarts": [wall + (at - now) for at in child.intensity.recent(now)],
        "restart_weights": [weight for _, weight in child.intensity.recent_restarts(now)],
    }


def restore(child: ChildState, record: Mapping[str, Any] | None, now: float, wall: float) -> ChildState:
    """Return the child with the state in the record; the child unchanged if there is no valid record.

    `now` is the monotonic time and `wall` the Unix time of one moment. By them, the Unix times in the record
    are converted to monotonic ones.
    """
    if not record:
        return child
    try:
        breaker = _restore_breaker(child, record["breaker"], now, wall)
        restarts = _restore_restarts(child, record, now, wall)
        stopped_by_hand = bool(record["stopped_by_hand"])
        count = max(0, int(record.get("restart_count", 0)))
    except (KeyError, TypeError, ValueError, OverflowError):
        return child
    intensity = replace(child.intensity, restarts=restarts)
    return replace(
        child, stopped_by_hand=stopped_by_hand, breaker=breaker, intensity=intensity, restarts=count
    )


def _restore_restarts(
    child: ChildState, record: Mapping[str, Any], now: float, wall: float
) -> tuple[tuple[float, float], ...]:
    """Return the monotonic time and the weight of each restart in `record` that is within the window of
    `child.intensity`. `now` is the monotonic time and `wall` the Unix time of one moment.

    A restart without a weight, as in the records of earlier versions, or with an invalid weight counts 1.
    Raises KeyError, TypeError, ValueError or OverflowError if the record is malformed.
    """
    times = [float(at) for at in record["restarts"]]
    weights = [float(weight) for weight in record.get("restart_weights", [1.0] * len(times))]
    pairs = zip(times, weights, strict=True)
    restarts = [(now - (wall - at), weight if 0 < weight <= 1 else 1.0) for at, weight in pairs]
    return tuple(sorted(each for each in restarts if 0 <= now - each[0] < child.intensity.window_s))


def _restore_breaker(child: ChildState, record: Mapping[str, Any], now: float, wall: float) -> Breaker:
    remaining_s = min(max(0.0, float(record["until"]) - wall), child.policy.breaker.max_open_s)
    return replace(
        child.breaker,
        state=BreakerState.OPEN if record["open"] else BreakerState.CLOSED,
        failures=max(0, int(record["failures"])),
        opens=max(0, int(record["opens"])),
        until=now + remaining_s if record["open"] else 0.0,
    )
