"""Stop a child (SIGTERM, then SIGKILL), and decide what follows when its process has ended. Pure."""

from __future__ import annotations

from dataclasses import replace

from vestal.supervision.lifecycle.actions import (
    Emit,
    Kill,
    RestartSiblings,
    SaveState,
    Terminate,
    Transition,
    prepend,
)
from vestal.supervision.lifecycle.breaker import BreakerState
from vestal.supervision.lifecycle.child_state import AfterStop, ChildState
from vestal.supervision.lifecycle.start import launch_if_allowed
from vestal.supervision.lifecycle.states import ExitStatus, RestartType, State

KILL_AGAIN_S = 5.0


def begin_stop(child: ChildState, after_stop: AfterStop, cause: str, now: float) -> Transition:
    """Return the transition to STOPPING of a child that has a process, or whose process is being launched.

    SIGTERM is sent now, or once the process has been launched, and SIGKILL when the child's timer fires.
    `after_stop` says what follows when the process has ended. `cause` appears in events and in the status.
    """
    planned = after_stop is not AfterStop.RESTART_AS_DEAD
    timer_at = now + child.policy.stop_timeout(planned)
    child = replace(
        child, state=State.STOPPING, after_stop=after_stop, cause=cause, detail="", timer_at=timer_at
    )
    return child, () if child.pid is None else (Terminate(child.run),)


def stop_timed_out(child: ChildState, now: float) -> Transition:
    """Send SIGKILL, and send it again every 5 s, because no other process is launched while this one
    exists.
    """
    child = replace(child, timer_at=now + KILL_AGAIN_S)
    if child.pid is None:
        return child, ()
    if child.kill_sent:
        detail = f"PID {child.pid} does not end on SIGKILL (does it wait in the kernel?)"
        return replace(child, detail=detail), (Kill(child.run),)
    killed = Emit("child_killed", child.cause, {"pid": child.pid})
    return replace(child, kill_sent=True), (Kill(child.run), killed)


def process_gone(
    child: ChildState, status: ExitStatus | None, now: float, productive: bool = False
) -> Transition:
    """Decide whether the child is restarted, now that its process has ended or was not created.

    `status` is None if the launch created no process; `productive` says whether the process served requests.
    """
    was_planned = child.state is State.STOPPING and child.after_stop is not AfterStop.RESTART_AS_DEAD
    child = replace(child, alive=False, pid=None, failed_probes=0, timer_at=None)
    if not was_planned:
        return _died(child, status, now, productive)
    child = replace(child, breaker=child.breaker.cancel_trial(now))
    child = replace(child, state=State.STOPPED, detail="", last_end="")
    if child.after_stop is AfterStop.STAY_STOPPED:
        return replace(child, restarts=0), (Emit("child_stopped", child.cause), SaveState())
    child = replace(child, restarts=child.restarts + 1)
    if child.on_hold:
        return child, ()
    restarting = Emit("child_restarting", child.cause, {"delay_s": 0.0})
    child, actions = prepend((restarting,), launch_if_allowed(child, now))
    return child, (*actions, SaveState())


def _died(child: ChildState, status: ExitStatus | None, now: float, productive: bool) -> Transition:
    """Return the transition of a child that ended by itself, hung, was not ready in time or could not be
    launched.

    The child is restarted, at once or after a delay (BACKOFF), or waits in OPEN if its circuit breaker is
    open. It becomes FAILED if it ended by itself with one of `fatal_exit_codes`, and STOPPED if its restart
    type (see `RestartType`) forbids a restart. `status` is None if the launch created no process;
    `productive` says whether the process served requests.
    """
    by_itself = child.state is not State.STOPPING
    child = replace(child, last_end=child.detail or child.cause)
    siblings = (RestartSiblings(),) if child.coupled else ()
    if by_itself and status is not None and status.code in child.fatal_exit_codes:
        child = replace(child, state=State.FAILED, breaker=child.breaker.cancel_trial(now))
        return child, (Emit("child_gave_up", child.detail, {"code": status.code}), *siblings)
    cause = child.detail if by_itself else child.cause
    finished = by_itself and status is not None and status.code == 0
    if child.restart is RestartType.TEMPORARY or (child.restart is RestartType.TRANSIENT and finished):
        child = replace(child, state=State.STOPPED, wanted=False, breaker=child.breaker.cancel_trial(now))
        return child, (Emit("child_stopped", cause),)
    child, delay_s = _charge(replace(child, cause=cause), now, productive)
    child = replace(child, on_hold=child.coupled)
    is_open = child.breaker.state is BreakerState.OPEN
    child, actions = _wait_for_breaker(child, now) if is_open else _restart(child, delay_s, now)
    return child, (*actions, *siblings)


def _charge(child: ChildState, now: float, productive: bool) -> tuple[ChildState, float]:
    """Count the death for the circuit breaker, the restart intensity and the backoff. Return the child with
    the new counts, and the delay before its restart in seconds.

    A process that was never ready, and served no requests, counts as a failed start for the breaker. A
    process that served requests (`productive`), or was ready for `stable_after_s`, is restarted without
    delay. If it served requests, its restart counts only as `productive_weight` restarts for the intensity,
    and each earlier restart counts as at most that, because they were not a crash loop. A restart that
    exceeds the intensity opens the breaker.
    """
    delay_s = child.policy.backoff.delay(child.backoff_attempt)
    attempt = child.backoff_attempt + 1
    breaker = child.breaker
    weight = child.policy.productive_weight if productive else 1.0
    child = replace(child, intensity=child.intensity.lighten(weight))
    exceeded = child.intensity.exceeded(now, weight)
    if productive or (child.ready_at is not None and now - child.ready_at >= child.policy.stable_after_s):
        delay_s, attempt = 0.0, 0
        breaker = breaker.start_succeeded()  # it may have worked before its ready probe succeeded
        breaker = breaker if exceeded else breaker.ran_stably()
    elif child.ready_at is None:
        breaker = breaker.start_failed(now)
    if exceeded and breaker.state is not BreakerState.OPEN:
        limit = child.policy.intensity
        window = f"{limit.max_restarts} restarts within {limit.window_s:g} s"
        detail = f"{window}; last: {child.detail or child.cause}"
        child = replace(child, cause=f"{window}; last: {child.cause}", detail=detail)
        breaker = breaker.trip(now)
    child = replace(child, breaker=breaker, backoff_attempt=attempt, next_start_weight=weight)
    return child, delay_s


def _wait_for_breaker(child: ChildState, now: float) -> Transition:
    timer_at, detail = child.breaker.until, child.detail or child.cause
    child = replace(child, state=State.OPEN, timer_at=timer_at, detail=detail, next_start_weight=0.0)
    fields = {"open_s": round(child.breaker.until - now, 3), "opens": child.breaker.opens}
    return child, (Emit("breaker_opened", child.cause, fields), SaveState())


def _restart(child: ChildState, delay_s: float, now: float) -> Transition:
    start_at = max(now + delay_s, child.no_start_before)
    child = replace(child, restarts=child.restarts + 1)
    fields = {"delay_s": round(start_at - now, 3), "attempt": child.backoff_attempt}
    restarting = Emit("child_restarting", child.cause, fields)
    if start_at > now:
        return replace(child, state=State.BACKOFF, timer_at=start_at), (restarting,)
    return prepend((restarting,), launch_if_allowed(child, now))
