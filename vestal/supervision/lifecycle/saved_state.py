"""What of a child outlives its supervisor: the breaker, the restarts in the window, a stop by hand.

Monotonic times mean nothing to the next process, so the record holds wall times; a wall clock that was set
in between can shorten or stretch an open time, but never beyond the policy's longest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vestal.supervision.lifecycle.breaker import Breaker, BreakerState
from vestal.supervision.lifecycle.child_state import ChildState


def to_record(m: ChildState, now: float, wall: float) -> dict[str, Any]:
    """The model's memory as JSON-able data."""
    return {
        "stopped_by_hand": m.by_hand,
        "breaker": {
            "open": m.breaker.state is not BreakerState.CLOSED,
            "failures": m.breaker.failures,
            "opens": m.breaker.opens,
            # a trial cut short by the supervisor's own end is due again at once
            "until": wall + (m.breaker.until - now if m.breaker.state is BreakerState.OPEN else 0.0),
        },
        "restarts": [wall + (at - now) for at in m.intensity.recent(now)],
    }


def restored(m: ChildState, record: Mapping[str, Any] | None, now: float, wall: float) -> ChildState:
    """The model with an earlier supervisor's memory. What is not understood is as if never written."""
    if not record:
        return m
    try:
        breaker = _breaker(m, record["breaker"], now, wall)
        ages = [wall - float(at) for at in record["restarts"]]
        times = tuple(sorted(now - age for age in ages if 0 <= age < m.intensity.window_s))
        by_hand = bool(record["stopped_by_hand"])
    except (KeyError, TypeError, ValueError):
        return m
    return replace(m, by_hand=by_hand, breaker=breaker, intensity=replace(m.intensity, times=times))


def _breaker(m: ChildState, record: Mapping[str, Any], now: float, wall: float) -> Breaker:
    left_s = min(max(0.0, float(record["until"]) - wall), m.policy.breaker.max_open_s)
    return replace(
        m.breaker,
        state=BreakerState.OPEN if record["open"] else BreakerState.CLOSED,
        failures=max(0, int(record["failures"])),
        opens=max(0, int(record["opens"])),
        until=now + left_s if record["open"] else 0.0,
    )
