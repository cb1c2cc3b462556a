"""Decide about the start of a child: whether it may be launched now, and which state it has when it is
launched and when it is ready. Pure: the functions return new states and actions, such as the launch, which
the caller carries out.
"""

from __future__ import annotations

from dataclasses import replace

from vestal.supervision.lifecycle.actions import Action, Emit, Launch, SaveState, Transition
from vestal.supervision.lifecycle.breaker import BreakerState
from vestal.supervision.lifecycle.child_state import ChildState
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.states import State


def launch_if_allowed(child: ChildState, now: float) -> Transition:
    """Launch the child, unless it is on hold, its memory is still being freed after a SIGKILL, or the circuit
    breaker is open.

    Every launch passes through here. A child that may not be launched yet waits in STOPPED, BACKOFF or OPEN.
    """
    if child.on_hold:
        return replace(child, state=State.STOPPED, timer_at=None), ()
    if now < child.no_start_before:
        detail = child.detail or "the machine's memory settles after a kill"
        return replace(child, state=State.BACKOFF, timer_at=child.no_start_before, detail=detail), ()
    if not child.breaker.allows_start(now):
        return replace(child, state=State.OPEN, timer_at=child.breaker.until), ()
    actions: tuple[Action, ...] = ()
    if child.breaker.state is not BreakerState.CLOSED:
        child = replace(child, breaker=child.breaker.begin_trial(now, child.policy.start_timeout_s))
        actions = (Emit("breaker_half_opened", child.cause), SaveState())
    elif child.next_start_weight:
        child = replace(child, intensity=child.intensity.add(now, child.next_start_weight))
        actions = (SaveState(),)
    child = new_run(child, now)
    # The launch comes first: it must not wait until a file has been written.
    return child, (Launch(child.run), *actions)


def new_run(child: ChildState, started_at: float, pid: int | None = None) -> ChildState:
    """Return the child in STARTING with the next run number, and without what is known of its last process.

    `pid` is None if the new process has yet to be launched.
    """
    return replace(
        child,
        state=State.STARTING,
        run=child.run + 1,
        pid=pid,
        alive=True,
        kill_sent=False,
        started_at=started_at,
        ready_at=None,
        load_progress=None,
        overdue=False,
        failed_probes=0,
        next_start_weight=0.0,
        detail="",
        timer_at=started_at + child.policy.start_timeout_s,
    )


def became_ready(child: ChildState, result: ProbeResult, now: float) -> Transition:
    """End STARTING: the start succeeded, which closes a half-open breaker."""
    was_trial = child.breaker.state is BreakerState.HALF_OPEN
    child = replace(
        child,
        state=up_state(result),
        ready_at=now,
        timer_at=None,
        failed_probes=0,
        detail=result.detail,
        breaker=child.breaker.start_succeeded(),
    )
    fields = {"pid": child.pid, "start_s": round(now - child.started_at, 3)}
    ready = Emit("child_ready", child.cause, fields)
    return child, (ready, Emit("breaker_closed", "the trial start succeeded")) if was_trial else (ready,)


def up_state(result: ProbeResult) -> State:
    """Return the state of a child that a probe found ready or alive: BUSY or DEGRADED if the probe says so,
    BUSY also if the child loads something, and otherwise READY.
    """
    if result.state is State.STARTING:  # the child is up and loads something more: it is occupied
        return State.BUSY
    return result.state if result.state in (State.BUSY, State.DEGRADED) else State.READY
