"""The life of one child as a pure function: `step(model, input, now)` gives the next model and what to do.

    STOPPED ─start→ STARTING ─ready→ READY ⇄ BUSY ⇄ DEGRADED ─exit→ (restart at once | BACKOFF | OPEN)
    BACKOFF ─due→ STARTING       OPEN ─due→ STARTING (half-open: the one trial)       exit 78 → FAILED
    STARTING, READY… ─stop, hung, not ready in time→ STOPPING ─TERM, then KILL→ STOPPED or a restart

One process at a time: nothing is launched until the last one is known to be gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from supervision.breaker import Breaker, BreakerState
from supervision.model import (
    Action,
    Adopted,
    Emit,
    Exited,
    Fell,
    HealthAnswered,
    Hold,
    Input,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Model,
    Persist,
    ReadyAnswered,
    Release,
    Renew,
    Start,
    Stop,
    Terminate,
    Then,
    Tick,
)
from supervision.probe import ProbeResult
from supervision.states import ExitStatus, Restart, State

SIGKILL = 9
KILL_AGAIN_S = 5.0

Step = tuple[Model, tuple[Action, ...]]


def step(model: Model, news: Input, now: float) -> Step:
    """What becomes of the child. Unknown, late and repeated news change nothing."""
    stale = getattr(news, "run", model.run) != model.run
    if stale or (hasattr(news, "run") and not model.alive):
        return model, ()
    before = model.breaker
    after, actions = _HANDLERS[type(news)](model, news, now)
    if after.state is not model.state:
        after = replace(after, since=now)
    if after.breaker.state is not before.state and not any(isinstance(a, Persist) for a in actions):
        actions = (*actions, Persist())
    return after, actions


# --- asked for -------------------------------------------------------------------------------------------


def _start(m: Model, news: Start, now: float) -> Step:
    m = replace(_reset(m) if news.reset else m, wanted=True, by_hand=False, cause=news.cause)
    if m.state is State.STOPPING:
        return replace(m, then=Then.RENEW), (Persist(),)
    if m.state in (State.STOPPED, State.FAILED, State.ABSENT):
        m = replace(m, attempt=0, charged=False, detail="")
    elif m.alive or not news.reset:  # running, or due in its own time
        return m, (Persist(),)
    return _and_then((Persist(),), _bring_up(m, now))


def _stop(m: Model, news: Stop, now: float) -> Step:
    m = replace(m, wanted=False, by_hand=m.by_hand or news.by_hand, held=False)
    if m.state is State.STOPPING:
        return replace(m, then=Then.STOP, cause=news.cause), (Persist(),)
    if m.alive:
        return _and_then((Persist(),), _begin_stop(m, Then.STOP, news.cause, now))
    told = () if m.state is State.STOPPED else (Emit("child_stopped", news.cause),)
    return replace(m, state=State.STOPPED, wake_at=None, cause=news.cause), (*told, Persist())


def _renew(m: Model, news: Renew, now: float) -> Step:
    if m.by_hand or (m.state is State.STOPPING and m.then is Then.STOP):
        return m, ()
    if m.state is State.STOPPING:
        return (m if m.held else replace(m, then=Then.RENEW)), ()
    if m.alive:
        m = _reset(m) if news.reset else m
        return _begin_stop(replace(m, wanted=True), Then.RENEW, news.cause, now)
    return _start(m, Start(news.cause, news.reset), now)


def _reset(m: Model) -> Model:
    return replace(m, breaker=Breaker(m.policy.breaker), intensity=m.policy.intensity, attempt=0)


def _hold(m: Model, news: Hold, now: float) -> Step:
    m = replace(m, held=True)
    if m.alive and m.state is not State.STOPPING:
        return _begin_stop(m, Then.HOLD, news.cause, now)
    return m, ()


def _release(m: Model, _: Release, now: float) -> Step:
    m = replace(m, held=False)
    if m.wanted and m.state is State.STOPPED and not m.alive:
        return _bring_up(m, now)
    return m, ()


# --- starting --------------------------------------------------------------------------------------------


def _bring_up(m: Model, now: float) -> Step:
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


def _launch(m: Model, now: float, told: tuple[Action, ...]) -> Step:
    run = m.run + 1
    m = _new_run(m, run, now)
    return m, (Launch(run), *told)  # launch first: every millisecond of a restart counts


def _new_run(m: Model, run: int, started_at: float, pid: int | None = None) -> Model:
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


def _launched(m: Model, news: Launched, now: float) -> Step:
    m = replace(m, pid=news.pid)
    if m.state is State.STOPPING:  # the stop came while it was being made
        return m, (Terminate(m.run),)
    started = Emit("child_started", m.cause, {"pid": news.pid, "restarts": m.restarts})
    if m.ready_probed:
        return m, (started,)
    return _and_then((started,), _came_up(m, ProbeResult(True), now))


def _launch_failed(m: Model, news: LaunchFailed, now: float) -> Step:
    m = replace(m, detail=news.detail)
    told = (Emit("child_launch_failed", news.detail),)
    return _and_then(told, _gone(m, None, now))


def _adopted(m: Model, news: Adopted, now: float) -> Step:
    if m.alive:
        return m, ()
    m = replace(_new_run(m, m.run + 1, now, news.pid), wanted=not m.by_hand, held=False)
    m = replace(m, started_at=now - news.age_s)
    told = Emit("child_adopted", "", {"pid": news.pid, "age_s": round(news.age_s, 1)})
    if not m.wanted:
        return _and_then((told,), _begin_stop(m, Then.STOP, "it was stopped by hand", now))
    if not news.keep:
        return _and_then((told,), _begin_stop(m, Then.RENEW, "left over from an earlier supervisor", now))
    if m.breaker.state is not BreakerState.CLOSED:
        open_breaker = replace(m.breaker, until=now)
        m = replace(m, breaker=open_breaker.admit(now, m.policy.start_timeout_s))
    if m.ready_probed:
        return m, (told,)
    return _and_then((told,), _came_up(m, ProbeResult(True), now))


# --- probes ----------------------------------------------------------------------------------------------


def _ready_answered(m: Model, news: ReadyAnswered, now: float) -> Step:
    if m.state is not State.STARTING:
        return m, ()
    if news.result.ready:
        return _came_up(m, news.result, now)
    m = replace(m, detail=news.result.detail or m.detail)
    return (_more_time(m, news.result, now) if news.result.state is State.STARTING else m), ()


def _more_time(m: Model, result: ProbeResult, now: float) -> Model:
    """It loads, and gets on with it: a start limit shorter than a model's load never lets it up."""
    if result.progress is not None and m.progress is not None and result.progress <= m.progress:
        return m
    timeout_s = m.policy.start_timeout_s
    breaker = m.breaker.extend(now, timeout_s)
    return replace(m, progress=result.progress, wake_at=now + timeout_s, breaker=breaker)


def _came_up(m: Model, result: ProbeResult, now: float) -> Step:
    trial = m.breaker.state is BreakerState.HALF_OPEN
    m = replace(
        m, state=_up_state(result), ready_at=now, wake_at=None, failures=0, detail=result.detail,
        breaker=m.breaker.succeeded(),
    )  # fmt: skip
    ready = Emit("child_ready", m.cause, {"pid": m.pid, "start_s": round(now - m.started_at, 3)})
    return m, (ready, Emit("breaker_closed", "the trial came up")) if trial else (ready,)


def _up_state(result: ProbeResult) -> State:
    if result.state is State.STARTING:  # up, and loading something: alive, and occupied
        return State.BUSY
    return result.state if result.state in (State.BUSY, State.DEGRADED) else State.READY


def _health_answered(m: Model, news: HealthAnswered, now: float) -> Step:
    if not m.up:
        return m, ()
    if news.result.alive:
        return replace(m, state=_up_state(news.result), failures=0, detail=news.result.detail), ()
    m = replace(m, failures=m.failures + 1, detail=news.result.detail)
    if m.failures < m.policy.probe.failures:
        return m, ()
    told = Emit("health_failed", news.result.detail, {"pid": m.pid, "failures": m.failures})
    cause = f"{m.failures} health checks in a row failed: {news.result.detail or 'no answer'}"
    return _and_then((told,), _begin_stop(m, Then.RESTART, cause, now))


# --- ending ----------------------------------------------------------------------------------------------


def _begin_stop(m: Model, then: Then, cause: str, now: float) -> Step:
    wake_at = now + m.policy.stop_time(planned=then is not Then.RESTART)
    m = replace(m, state=State.STOPPING, then=then, cause=cause, wake_at=wake_at)
    return m, () if m.pid is None else (Terminate(m.run),)


def _tick(m: Model, _: Tick, now: float) -> Step:
    if m.wake_at is None or now < m.wake_at:
        return m, ()
    if m.state is State.STARTING:
        cause = f"not ready within {m.policy.start_timeout_s:g} s" + (f": {m.detail}" if m.detail else "")
        told = Emit("child_start_timed_out", cause, {"pid": m.pid})
        return _and_then((told,), _begin_stop(replace(m, detail=cause), Then.RESTART, cause, now))
    if m.state is State.STOPPING:
        return _kill(m, now)
    return _bring_up(m, now)


def _kill(m: Model, now: float) -> Step:
    m = replace(m, wake_at=now + KILL_AGAIN_S)
    if m.pid is None:
        return m, ()
    if m.killed:
        detail = f"PID {m.pid} does not end on SIGKILL (does it wait in the kernel?)"
        return replace(m, detail=detail), (Kill(m.run),)
    return replace(m, killed=True), (Kill(m.run), Emit("child_killed", m.cause, {"pid": m.pid}))


def _exited(m: Model, news: Exited, now: float) -> Step:
    status = news.status
    fields: dict[str, Any] = {"pid": m.pid, "code": status.code, "signal": status.signal}
    told = Emit("child_exited", m.cause if m.state is State.STOPPING else status.describe(), fields)
    detail = f"{status.describe()}: {news.detail}" if news.detail else status.describe()
    m = replace(m, last_exit=status)
    if m.state is not State.STOPPING:
        m = replace(m, detail=detail)
    if m.killed or status.signal == SIGKILL:
        m = replace(m, not_before=now + m.policy.settle_after_kill_s)
    return _and_then((told,), _gone(m, status, now))


def _gone(m: Model, status: ExitStatus | None, now: float) -> Step:
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
    return (m, ()) if m.held else _and_then((told,), _bring_up(m, now))


def _died(m: Model, status: ExitStatus | None, now: float) -> Step:
    unasked = m.state is not State.STOPPING
    if unasked and status is not None and status.code in m.fatal_exit_codes:
        m = replace(m, state=State.FAILED, breaker=m.breaker.abandon(now))
        return m, (Emit("child_gave_up", m.detail, {"code": status.code}),)
    finished = unasked and status is not None and status.code == 0
    if m.restart is Restart.TEMPORARY or (m.restart is Restart.TRANSIENT and finished):
        cause = m.detail if unasked else m.cause
        m = replace(m, state=State.STOPPED, wanted=False, breaker=m.breaker.abandon(now))
        return m, (Emit("child_stopped", cause),)
    m = replace(m, cause=m.detail if unasked else m.cause)
    m, delay_s = _charge(m, now)
    fell: tuple[Action, ...] = ()
    if m.coupled:
        m, fell = replace(m, held=True), (Fell(),)
    m, told = _open(m, now) if m.breaker.state is BreakerState.OPEN else _restart(m, delay_s, now)
    return m, (*told, *fell)


def _charge(m: Model, now: float) -> tuple[Model, float]:
    """Counts the death: a failed start for the breaker, a full window for the intensity; and the delay."""
    delay_s = m.policy.backoff.delay(m.attempt)
    attempt = m.attempt + 1
    breaker = m.breaker
    if m.ready_at is None:
        breaker = breaker.failed(now)
    elif now - m.ready_at >= m.policy.stable_after_s:
        breaker, delay_s, attempt = breaker.settled(), 0.0, 0
    if breaker.state is not BreakerState.OPEN and m.intensity.exceeded(now):
        window = f"{m.policy.intensity.max_restarts} restarts within {m.policy.intensity.window_s:g} s"
        m = replace(m, cause=f"{window}; last: {m.cause}")
        breaker = breaker.trip(now)
    return replace(m, breaker=breaker, attempt=attempt), delay_s


def _open(m: Model, now: float) -> Step:
    m = replace(m, state=State.OPEN, wake_at=m.breaker.until, detail=m.detail or m.cause)
    open_s = round(m.breaker.until - now, 3)
    return m, (Emit("breaker_opened", m.cause, {"open_s": open_s, "opens": m.breaker.opens}), Persist())


def _restart(m: Model, delay_s: float, now: float) -> Step:
    due = max(now + delay_s, m.not_before)
    m = replace(m, charged=True, restarts=m.restarts + 1)
    told = Emit("child_restarting", m.cause, {"delay_s": round(due - now, 3), "attempt": m.attempt})
    if due > now:
        return replace(m, state=State.BACKOFF, wake_at=due), (told,)
    return _and_then((told,), _bring_up(m, now))


def _and_then(told: tuple[Action, ...], rest: Step) -> Step:
    return rest[0], (*told, *rest[1])


_HANDLERS: dict[type, Callable[..., Step]] = {
    Start: _start, Stop: _stop, Renew: _renew, Hold: _hold, Release: _release, Adopted: _adopted,
    Launched: _launched, LaunchFailed: _launch_failed, Exited: _exited,
    ReadyAnswered: _ready_answered, HealthAnswered: _health_answered, Tick: _tick,
}  # fmt: skip
