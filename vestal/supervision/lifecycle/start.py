"""The lifecycle's way up: the one gate before a launch, the launch, and being up."""

from __future__ import annotations

from dataclasses import replace

from vestal.supervision.lifecycle.breaker import BreakerState
from vestal.supervision.lifecycle.child_state import ChildState
from vestal.supervision.lifecycle.messages import Action, Emit, Launch, Persist
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.states import State

Step = tuple[ChildState, tuple[Action, ...]]


def and_then(told: tuple[Action, ...], rest: Step) -> Step:
    """The step `rest`, with `told` done before its own actions."""
    return rest[0], (*told, *rest[1])


def bring_up(m: ChildState, now: float) -> Step:
    """The one gate that every launch passes: held, settling, breaker, intensity."""
    if m.held:
        return replace(m, state=State.STOPPED, wake_at=None), ()
    if now < m.not_before:
        detail = "the machine's memory settles after a kill"
        return replace(m, state=State.BACKOFF, wake_at=m.not_before, detail=m.detail or detail), ()
    if not m.breaker.admits(now):
        return replace(m, state=State.OPEN, wake_at=m.breaker.until), ()
    told: tuple[Action, ...] = ()
    if m.breaker.state is not BreakerState.CLOSED:
        m = replace(m, breaker=m.breaker.admit(now, m.policy.start_timeout_s))
        told = (Emit("breaker_half_opened", m.cause), Persist())
    elif m.charged:
        m = replace(m, intensity=m.intensity.add(now))
        told = (Persist(),)
    return _launch(m, now, told)


def _launch(m: ChildState, now: float, told: tuple[Action, ...]) -> Step:
    run = m.run + 1
    m = new_run(m, run, now)
    return m, (Launch(run), *told)  # launch first: every millisecond of a restart counts


def new_run(m: ChildState, run: int, started_at: float, pid: int | None = None) -> ChildState:
    """A process of its own: nothing of the last one's clings to it."""
    return replace(
        m,
        state=State.STARTING,
        run=run,
        pid=pid,
        alive=True,
        killed=False,
        started_at=started_at,
        ready_at=None,
        progress=None,
        failures=0,
        charged=False,
        wake_at=started_at + m.policy.start_timeout_s,
    )


def came_up(m: ChildState, result: ProbeResult, now: float) -> Step:
    """The start succeeded; so did the trial, where it was one."""
    trial = m.breaker.state is BreakerState.HALF_OPEN
    m = replace(
        m, state=up_state(result), ready_at=now, wake_at=None, failures=0, detail=result.detail,
        breaker=m.breaker.succeeded(),
    )  # fmt: skip
    ready = Emit("child_ready", m.cause, {"pid": m.pid, "start_s": round(now - m.started_at, 3)})
    return m, (ready, Emit("breaker_closed", "the trial came up")) if trial else (ready,)


def up_state(result: ProbeResult) -> State:
    """READY, BUSY or DEGRADED."""
    if result.state is State.STARTING:  # up, and loading something: alive, and occupied
        return State.BUSY
    return result.state if result.state in (State.BUSY, State.DEGRADED) else State.READY
