"""`step(child, received, now)`: the next state of a child, and the actions to carry out. Pure.

`received` is an `inputs.Input`: a request, a report about the child's process, or the passing of time.

    STOPPED → STARTING       Start
    STARTING → READY         the ready probe succeeds; if it reports BUSY or DEGRADED, that is the state
    READY, BUSY, DEGRADED → READY, BUSY, DEGRADED
                             the health probe finds the child alive, and reports that state
    STARTING, READY, … →     the process dies; the next state is
        STARTING             if it ran stably or served requests: it is restarted at once
        BACKOFF              otherwise: it is restarted after a delay
        OPEN                 after too many failed starts in a row, or too many restarts within a window: the
                             breaker is open. When its time is over, one trial start is made; the breaker is
                             half-open until that start succeeds or fails
        FAILED               for an exit code after which a restart is useless
        STOPPED              if its restart type forbids a restart, or its siblings have to stop first
    READY, BUSY, DEGRADED → STARTING
                             a successor has taken the place of the process (vestal.supervision.handover)
    STARTING, READY, … → STOPPING
                             Stop, Restart, failed health probes, or not ready in time: SIGTERM, then SIGKILL
    STOPPING → STOPPED       or one of the above, as for a process that died

No process is launched before the last one is known to be gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vestal.supervision.lifecycle import process_reports, requests
from vestal.supervision.lifecycle.actions import Emit, SaveState, Transition, prepend
from vestal.supervision.lifecycle.child_state import AfterStop, ChildState
from vestal.supervision.lifecycle.inputs import (
    Exited,
    HealthProbed,
    Input,
    Launched,
    LaunchFailed,
    MachineWoke,
    ProcessFound,
    ProcessReplaced,
    ReadyProbed,
    ReleaseHold,
    Restart,
    Start,
    Stop,
    StopAndHold,
    TimerFired,
)
from vestal.supervision.lifecycle.start import launch_if_allowed
from vestal.supervision.lifecycle.states import State
from vestal.supervision.lifecycle.stop import begin_stop, stop_timed_out


def step(child: ChildState, received: Input, now: float) -> Transition:
    """Return the child's next state and the actions to carry out.

    Reports about an earlier process, and about one that is gone, change nothing.
    """
    run = getattr(received, "run", None)
    if run is not None and (run != child.run or not child.alive):
        return child, ()
    after, actions = _HANDLERS[type(received)](child, received, now)
    breaker_changed = after.breaker.state is not child.breaker.state
    if breaker_changed and not any(isinstance(action, SaveState) for action in actions):
        actions = (*actions, SaveState())
    return after, actions


def _timer_fired(child: ChildState, _: TimerFired, now: float) -> Transition:
    if child.timer_at is None or now < child.timer_at:
        return child, ()
    if child.state is State.STARTING:
        return _start_timed_out(child, now)
    if child.state is State.STOPPING:
        return stop_timed_out(child, now)
    return launch_if_allowed(child, now)


def _start_timed_out(child: ChildState, now: float) -> Transition:
    cause = f"not ready within {child.policy.start_timeout_s:g} s" + (
        f": {child.detail}" if child.detail else ""
    )
    timed_out = Emit("child_start_timed_out", cause, {"pid": child.pid})
    child = replace(child, detail=cause)
    return prepend((timed_out,), begin_stop(child, AfterStop.RESTART_AS_DEAD, cause, now))


def _machine_woke(child: ChildState, report: MachineWoke, now: float) -> Transition:
    """Return the transition after the machine slept: failures from before are forgotten.

    The seconds that it slept count towards the delays of BACKOFF and OPEN. A child in STARTING gets its whole
    start timeout again.
    """
    start_timeout_s = child.policy.start_timeout_s
    child = replace(
        child,
        failed_probes=0,
        backoff_attempt=0,
        intensity=replace(child.intensity, restarts=()),
        breaker=child.breaker.machine_woke(now, report.slept_s, start_timeout_s),
        ignore_probes_until=now + child.policy.wake_grace_s,
        no_start_before=child.no_start_before - report.slept_s,
    )
    if child.timer_at is not None and child.state is State.STARTING:
        child = replace(child, timer_at=max(child.timer_at, now + start_timeout_s))
    elif child.timer_at is not None and child.state in (State.BACKOFF, State.OPEN):
        child = replace(child, timer_at=max(now, child.timer_at - report.slept_s))
    return child, (SaveState(),)


_HANDLERS: dict[type, Callable[..., Transition]] = {
    Start: requests.start,
    Stop: requests.stop,
    Restart: requests.restart,
    StopAndHold: requests.stop_and_hold,
    ReleaseHold: requests.release_hold,
    ProcessFound: process_reports.process_found,
    ProcessReplaced: process_reports.process_replaced,
    Launched: process_reports.launched,
    LaunchFailed: process_reports.launch_failed,
    Exited: process_reports.exited,
    ReadyProbed: process_reports.ready_probed,
    HealthProbed: process_reports.health_probed,
    TimerFired: _timer_fired,
    MachineWoke: _machine_woke,
}
