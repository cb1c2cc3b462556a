"""The status of a child for people and programs, from the state of its lifecycle. Pure."""

from __future__ import annotations

from collections.abc import Collection

from vestal.supervision.errors import WaitTimeout
from vestal.supervision.lifecycle.breaker import BreakerState
from vestal.supervision.lifecycle.child_state import ChildState
from vestal.supervision.lifecycle.states import ChildStatus, State


def status_of(child: ChildState, since: float, now: float) -> ChildStatus:
    """Return the status at the monotonic time `now` of a child whose state began at the Unix time `since`."""
    return ChildStatus(
        state=child.state,
        process_pid=child.pid,
        restart_count=child.restarts,
        health_check_failures=child.failed_probes,
        circuit_breaker_state=str(child.breaker.state),
        uptime_s=max(0.0, now - child.started_at) if child.pid is not None else 0.0,
        detail=child.detail,
        last_exit=child.last_exit,
        since=since,
        cause=child.cause,
        last_end=child.last_end,
        stopped_by_hand=child.stopped_by_hand,
        next_trial_in_s=_next_trial_in_s(child, now),
    )


def trial_at(child: ChildState) -> float | None:
    """Return the monotonic time at which the next trial start of the child's circuit breaker is due.

    During a trial, return when it began. None if the breaker is closed, or if no trial will follow.
    """
    if child.breaker.state is BreakerState.CLOSED or not child.wanted:
        return None
    if child.state is State.STARTING:
        return child.started_at
    return child.timer_at if child.state in (State.OPEN, State.BACKOFF) else None


def wait_timeout(name: str, child: ChildState, wanted: Collection[State], timeout_s: float) -> WaitTimeout:
    """Return the error for a caller that has waited `timeout_s` for the child `name` to enter one of the
    states `wanted`. It says in which state the child is instead.
    """
    detail = f": {child.detail}" if child.detail else ""
    hoped = " or ".join(sorted(wanted))
    message = f"{name} was not {hoped} within {timeout_s:g} s; it is {child.state}{detail}"
    return WaitTimeout(message, child=name, state=str(child.state))


def _next_trial_in_s(child: ChildState, now: float) -> float | None:
    """Return the seconds until the trial start of an open circuit breaker.

    None if the breaker is closed, if its trial is under way, or if no trial will follow.
    """
    at = None if child.state is State.STARTING else trial_at(child)
    return None if at is None else max(0.0, at - now)
