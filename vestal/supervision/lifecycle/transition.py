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

from vestal.supervision.lifecycle.breaker import Breaker, BreakerState
from vestal.supervision.lifecycle.child_state import ChildState, Then
from vestal.supervision.lifecycle.messages import (
    Adopted,
    Emit,
    Exited,
    HealthAnswered,
    Hold,
    Input,
    Launched,
    LaunchFailed,
    Persist,
    ReadyAnswered,
    Release,
    Renew,
    Start,
    Stop,
    Terminate,
    Tick,
    Woke,
)  # fmt: skip
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.start import Step, and_then, bring_up, came_up, new_run, up_state
from vestal.supervision.lifecycle.states import State
from vestal.supervision.lifecycle.stop import begin_stop, gone, kill

SIGKILL = 9


def step(model: ChildState, news: Input, now: float) -> Step:
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


def _start(m: ChildState, news: Start, now: float) -> Step:
    m = replace(_reset(m) if news.reset else m, wanted=True, by_hand=False, cause=news.cause)
    if m.state is State.STOPPING:
        return replace(m, then=Then.RENEW), (Persist(),)
    if m.state in (State.STOPPED, State.FAILED, State.ABSENT):
        m = replace(m, attempt=0, charged=False, detail="")
    elif m.alive or not news.reset:  # running, or due in its own time
        return m, (Persist(),)
    return and_then((Persist(),), bring_up(m, now))


def _stop(m: ChildState, news: Stop, now: float) -> Step:
    m = replace(m, wanted=False, by_hand=m.by_hand or news.by_hand, held=False)
    if m.state is State.STOPPING:
        return replace(m, then=Then.STOP, cause=news.cause), (Persist(),)
    if m.alive:
        return and_then((Persist(),), begin_stop(m, Then.STOP, news.cause, now))
    told = () if m.state is State.STOPPED else (Emit("child_stopped", news.cause),)
    return replace(m, state=State.STOPPED, wake_at=None, cause=news.cause), (*told, Persist())


def _renew(m: ChildState, news: Renew, now: float) -> Step:
    if m.by_hand or (m.state is State.STOPPING and m.then is Then.STOP):
        return m, ()
    if m.state is State.STOPPING:
        return (m if m.held else replace(m, then=Then.RENEW)), ()
    if m.alive:
        m = _reset(m) if news.reset else m
        return begin_stop(replace(m, wanted=True), Then.RENEW, news.cause, now)
    return _start(m, Start(news.cause, news.reset), now)


def _reset(m: ChildState) -> ChildState:
    return replace(m, breaker=Breaker(m.policy.breaker), intensity=m.policy.intensity, attempt=0)


def _hold(m: ChildState, news: Hold, now: float) -> Step:
    m = replace(m, held=True)
    if m.alive and m.state is not State.STOPPING:
        return begin_stop(m, Then.HOLD, news.cause, now)
    return m, ()


def _release(m: ChildState, _: Release, now: float) -> Step:
    m = replace(m, held=False)
    if m.wanted and m.state is State.STOPPED and not m.alive:
        return bring_up(m, now)
    return m, ()


# --- its process ---


def _launched(m: ChildState, news: Launched, now: float) -> Step:
    m = replace(m, pid=news.pid)
    if m.state is State.STOPPING:  # the stop came while it was being made
        return m, (Terminate(m.run),)
    started = Emit("child_started", m.cause, {"pid": news.pid, "restarts": m.restarts})
    if m.ready_probed:
        return m, (started,)
    return and_then((started,), came_up(m, ProbeResult(True), now))


def _launch_failed(m: ChildState, news: LaunchFailed, now: float) -> Step:
    m = replace(m, detail=news.detail)
    told = (Emit("child_launch_failed", news.detail),)
    return and_then(told, gone(m, None, now))


def _adopted(m: ChildState, news: Adopted, now: float) -> Step:
    if m.alive:
        return m, ()
    m = replace(new_run(m, m.run + 1, now, news.pid), wanted=not m.by_hand, held=False)
    m = replace(m, started_at=now - news.age_s)
    told = Emit("child_adopted", "", {"pid": news.pid, "age_s": round(news.age_s, 1)})
    if not m.wanted:
        return and_then((told,), begin_stop(m, Then.STOP, "it was stopped by hand", now))
    if not news.keep:
        return and_then((told,), begin_stop(m, Then.RENEW, "left over from an earlier supervisor", now))
    if m.breaker.state is not BreakerState.CLOSED:
        open_breaker = replace(m.breaker, until=now)
        m = replace(m, breaker=open_breaker.admit(now, m.policy.start_timeout_s))
    if m.ready_probed:
        return m, (told,)
    return and_then((told,), came_up(m, ProbeResult(True), now))


def _exited(m: ChildState, news: Exited, now: float) -> Step:
    status = news.status
    fields: dict[str, Any] = {"pid": m.pid, "code": status.code, "signal": status.signal}
    told = Emit("child_exited", m.cause if m.state is State.STOPPING else status.describe(), fields)
    m = replace(m, last_exit=status, detail=_last_words(m, news))
    if m.killed or status.signal == SIGKILL:
        m = replace(m, not_before=now + m.policy.settle_after_kill_s)
    return and_then((told,), gone(m, status, now))


def _last_words(m: ChildState, news: Exited) -> str:
    """Why it ended, for people: its own fault where we ended it, else how it went; and its last log line."""
    why = m.cause if m.state is State.STOPPING else news.status.describe()
    if news.status.signal == SIGKILL:  # it had no time for words: the last line is of its work
        return why
    return f"{why}: {news.detail}" if news.detail else why


# --- probes ----------------------------------------------------------------------------------------------


def _ready_answered(m: ChildState, news: ReadyAnswered, now: float) -> Step:
    if m.state is not State.STARTING:
        return m, ()
    if news.result.ready:
        return came_up(m, news.result, now)
    m = replace(m, detail=news.result.detail or m.detail)
    return (_more_time(m, news.result, now) if news.result.state is State.STARTING else m), ()


def _more_time(m: ChildState, result: ProbeResult, now: float) -> ChildState:
    """It loads, and gets on with it: a start limit shorter than a model's load never lets it up."""
    if result.progress is not None and m.progress is not None and result.progress <= m.progress:
        return m
    timeout_s = m.policy.start_timeout_s
    breaker = m.breaker.extend(now, timeout_s)
    return replace(m, progress=result.progress, wake_at=now + timeout_s, breaker=breaker)


def _health_answered(m: ChildState, news: HealthAnswered, now: float) -> Step:
    if not m.up:
        return m, ()
    if not news.result.alive and now < m.grace_until:
        return replace(m, detail=news.result.detail), ()
    if news.result.alive:
        return replace(m, state=up_state(news.result), failures=0, detail=news.result.detail), ()
    m = replace(m, failures=m.failures + 1, detail=news.result.detail)
    if m.failures < m.policy.probe.failures:
        return m, ()
    told = Emit("health_failed", news.result.detail, {"pid": m.pid, "failures": m.failures})
    cause = f"{m.failures} health checks in a row failed: {news.result.detail or 'no answer'}"
    return and_then((told,), begin_stop(m, Then.RESTART, cause, now))


# --- time ---


def _tick(m: ChildState, _: Tick, now: float) -> Step:
    if m.wake_at is None or now < m.wake_at:
        return m, ()
    if m.state is State.STARTING:
        cause = f"not ready within {m.policy.start_timeout_s:g} s" + (f": {m.detail}" if m.detail else "")
        told = Emit("child_start_timed_out", cause, {"pid": m.pid})
        return and_then((told,), begin_stop(replace(m, detail=cause), Then.RESTART, cause, now))
    if m.state is State.STOPPING:
        return kill(m, now)
    return bring_up(m, now)


def _woke(m: ChildState, news: Woke, now: float) -> Step:
    """What failed before the sleep is forgotten, waiting counts the time asleep, and the rest gets some."""
    timeout_s = m.policy.start_timeout_s
    m = replace(
        m, failures=0, attempt=0, intensity=replace(m.intensity, times=()),
        breaker=m.breaker.woke(now, news.slept_s, timeout_s),
        grace_until=now + m.policy.wake_grace_s, not_before=m.not_before - news.slept_s,
    )  # fmt: skip
    if m.wake_at is not None and m.state is State.STARTING:
        m = replace(m, wake_at=max(m.wake_at, now + timeout_s))
    elif m.wake_at is not None and m.state in (State.BACKOFF, State.OPEN):
        m = replace(m, wake_at=max(now, m.wake_at - news.slept_s))
    return m, (Persist(),)


_HANDLERS: dict[type, Callable[..., Step]] = {
    Start: _start, Stop: _stop, Renew: _renew, Hold: _hold, Release: _release, Adopted: _adopted,
    Launched: _launched, LaunchFailed: _launch_failed, Exited: _exited,
    ReadyAnswered: _ready_answered, HealthAnswered: _health_answered, Tick: _tick, Woke: _woke,
}  # fmt: skip
