"""The lifecycle's way down: TERM, KILL, and what a death leads to."""

from __future__ import annotations

from dataclasses import replace

from vestal.supervision.lifecycle.breaker import BreakerState
from vestal.supervision.lifecycle.child_state import ChildState, Then
from vestal.supervision.lifecycle.messages import Emit, Fell, Kill, Persist, Terminate
from vestal.supervision.lifecycle.start import Step, and_then, bring_up
from vestal.supervision.lifecycle.states import ExitStatus, RestartType, State

KILL_AGAIN_S = 5.0


def begin_stop(m: ChildState, then: Then, cause: str, now: float) -> Step:
    """SIGTERM now (or once the process is made), SIGKILL when its time is over."""
    wake_at = now + m.policy.stop_time(planned=then is not Then.RESTART)
    m = replace(m, state=State.STOPPING, then=then, cause=cause, wake_at=wake_at)
    return m, () if m.pid is None else (Terminate(m.run),)


def kill(m: ChildState, now: float) -> Step:
    """SIGTERM's time is over. Nothing else is launched while the process lives, however long it takes."""
    m = replace(m, wake_at=now + KILL_AGAIN_S)
    if m.pid is None:
        return m, ()
    if m.killed:
        detail = f"PID {m.pid} does not end on SIGKILL (does it wait in the kernel?)"
        return replace(m, detail=detail), (Kill(m.run),)
    return replace(m, killed=True), (Kill(m.run), Emit("child_killed", m.cause, {"pid": m.pid}))


def gone(m: ChildState, status: ExitStatus | None, now: float) -> Step:
    """No process is left (`status` None: none was made). What now?"""
    planned = m.state is State.STOPPING and m.then is not Then.RESTART
    m = replace(m, alive=False, pid=None, failures=0, wake_at=None)
    if not planned:
        return _died(m, status, now)
    m = replace(m, breaker=m.breaker.abandon(now))
    if m.then is Then.STOP:
        return replace(m, state=State.STOPPED, detail=""), (Emit("child_stopped", m.cause),)
    told = Emit("child_restarting", m.cause, {"delay_s": 0.0})
    m = replace(m, restarts=m.restarts + 1, state=State.STOPPED)
    return (m, ()) if m.held else and_then((told,), bring_up(m, now))


def _died(m: ChildState, status: ExitStatus | None, now: float) -> Step:
    unasked = m.state is not State.STOPPING
    fell = (Fell(),) if m.coupled else ()
    if unasked and status is not None and status.code in m.fatal_exit_codes:
        m = replace(m, state=State.FAILED, breaker=m.breaker.abandon(now))
        return m, (Emit("child_gave_up", m.detail, {"code": status.code}), *fell)
    finished = unasked and status is not None and status.code == 0
    if m.restart is RestartType.TEMPORARY or (m.restart is RestartType.TRANSIENT and finished):
        cause = m.detail if unasked else m.cause
        m = replace(m, state=State.STOPPED, wanted=False, breaker=m.breaker.abandon(now))
        return m, (Emit("child_stopped", cause),)
    m = replace(m, cause=m.detail if unasked else m.cause)
    m, delay_s = _charge(m, now)
    m = replace(m, held=m.coupled)
    m, told = _open(m, now) if m.breaker.state is BreakerState.OPEN else _restart(m, delay_s, now)
    return m, (*told, *fell)


def _charge(m: ChildState, now: float) -> tuple[ChildState, float]:
    """Counts the death: a failed start for the breaker, a full window for the intensity; and the delay."""
    delay_s = m.policy.backoff.delay(m.attempt)
    attempt = m.attempt + 1
    breaker = m.breaker
    exceeded = m.intensity.exceeded(now)
    if m.ready_at is None:
        breaker = breaker.failed(now)
    elif now - m.ready_at >= m.policy.stable_after_s:
        delay_s, attempt = 0.0, 0
        breaker = breaker if exceeded else breaker.settled()
    if exceeded and breaker.state is not BreakerState.OPEN:
        window = f"{m.policy.intensity.max_restarts} restarts within {m.policy.intensity.window_s:g} s"
        m = replace(m, cause=f"{window}; last: {m.cause}")
        breaker = breaker.trip(now)
    return replace(m, breaker=breaker, attempt=attempt), delay_s


def _open(m: ChildState, now: float) -> Step:
    m = replace(m, state=State.OPEN, wake_at=m.breaker.until, detail=m.detail or m.cause)
    open_s = round(m.breaker.until - now, 3)
    return m, (Emit("breaker_opened", m.cause, {"open_s": open_s, "opens": m.breaker.opens}), Persist())


def _restart(m: ChildState, delay_s: float, now: float) -> Step:
    due = max(now + delay_s, m.not_before)
    m = replace(m, charged=True, restarts=m.restarts + 1)
    told = Emit("child_restarting", m.cause, {"delay_s": round(due - now, 3), "attempt": m.attempt})
    if due > now:
        return replace(m, state=State.BACKOFF, wake_at=due), (told,)
    return and_then((told,), bring_up(m, now))
