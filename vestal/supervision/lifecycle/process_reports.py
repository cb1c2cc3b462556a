"""Handle the inputs about a child's process: it was found, launched or has ended, or a probe has a result.
Pure.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from vestal.supervision.lifecycle.actions import Emit, Terminate, Transition, prepend
from vestal.supervision.lifecycle.breaker import BreakerState
from vestal.supervision.lifecycle.child_state import AfterStop, ChildState
from vestal.supervision.lifecycle.inputs import (
    Exited,
    HealthProbed,
    Launched,
    LaunchFailed,
    ProcessFound,
    ProcessReplaced,
    ReadyProbed,
)
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.start import became_ready, new_run, up_state
from vestal.supervision.lifecycle.states import State
from vestal.supervision.lifecycle.stop import begin_stop, process_gone

SIGKILL = int(signal.SIGKILL)


def process_found(child: ChildState, report: ProcessFound, now: float) -> Transition:
    """Adopt the process of an earlier supervisor. Terminate it instead if the child was stopped by hand, or
    if it may not be adopted; in the second case, another process is then started. Change nothing if the child
    already has a process.

    If the breaker is not closed, the adopted process counts as its trial start.
    """
    if child.alive:
        return child, ()
    child = replace(new_run(child, now, report.pid), wanted=not child.stopped_by_hand, on_hold=False)
    child = replace(child, started_at=now - report.age_s)
    adopted = Emit("child_adopted", "", {"pid": report.pid, "age_s": round(report.age_s, 1)})
    if not child.wanted:
        cause = "it was stopped by hand"
        return prepend((adopted,), begin_stop(child, AfterStop.STAY_STOPPED, cause, now))
    if not report.adopt:
        cause = "left over from an earlier supervisor"
        return prepend((adopted,), begin_stop(child, AfterStop.START_AGAIN, cause, now))
    if child.breaker.state is not BreakerState.CLOSED:
        due_breaker = replace(child.breaker, until=now)
        child = replace(child, breaker=due_breaker.begin_trial(now, child.policy.start_timeout_s))
    if child.has_ready_probe:
        return child, (adopted,)
    return prepend((adopted,), became_ready(child, ProbeResult(True), now))


def process_replaced(child: ChildState, report: ProcessReplaced, now: float) -> Transition:
    """Make the successor the child's process. This is not a restart: nothing is counted, and the breaker
    stays closed.

    A child that is not up stays as it is, because it has no process that could be replaced.
    """
    if not child.up:
        return child, ()
    predecessor = child.pid
    child = replace(new_run(child, now, report.pid), cause="it takes over from an older process", detail="")
    replaced = Emit("child_replaced", child.cause, {"pid": report.pid, "predecessor": predecessor})
    if child.has_ready_probe:
        return child, (replaced,)
    return prepend((replaced,), became_ready(child, ProbeResult(True), now))


def launched(child: ChildState, report: Launched, now: float) -> Transition:
    """Return the transition after a launch: the child stays in STARTING until its ready probe succeeds.

    Without a ready probe it is ready at once. If a stop was requested during the launch, the process is
    terminated.
    """
    child = replace(child, pid=report.pid)
    if child.state is State.STOPPING:  # the stop was requested while the process was being launched
        return child, (Terminate(child.run),)
    started = Emit("child_started", child.cause, {"pid": report.pid, "restarts": child.restarts})
    if child.has_ready_probe:
        return child, (started,)
    return prepend((started,), became_ready(child, ProbeResult(True), now))


def launch_failed(child: ChildState, report: LaunchFailed, now: float) -> Transition:
    """Count a launch that started no process as a failed start."""
    child = replace(child, detail=report.detail)
    failed = Emit("child_launch_failed", report.detail)
    return prepend((failed,), process_gone(child, None, now))


def exited(child: ChildState, report: Exited, now: float) -> Transition:
    """Record how the process ended, and decide whether the child is restarted."""
    status = report.status
    fields: dict[str, Any] = {"pid": child.pid, "code": status.code, "signal": status.signal}
    fields["planned"] = child.state is State.STOPPING and child.after_stop is not AfterStop.RESTART_AS_DEAD
    cause = child.cause if child.state is State.STOPPING else status.describe()
    child = replace(child, last_exit=status, detail=_why_it_ended(child, report))
    if child.kill_sent or status.signal == SIGKILL:
        child = replace(child, no_start_before=now + child.policy.settle_after_kill_s)
    return prepend(
        (Emit("child_exited", cause, fields),), process_gone(child, status, now, report.productive)
    )


def _why_it_ended(child: ChildState, report: Exited) -> str:
    """Return why the process ended: the cause of its stop if it was being stopped, else its exit status.

    The last line of its log follows, except after SIGKILL, which leaves a process no time to log a reason.
    """
    why = child.cause if child.state is State.STOPPING else report.status.describe()
    if report.status.signal == SIGKILL:
        return why
    return f"{why}: {report.last_line}" if report.last_line else why


def ready_probed(child: ChildState, report: ReadyProbed, now: float) -> Transition:
    """Return the transition of a child in STARTING after its ready probe.

    If it is ready, it enters READY, BUSY or DEGRADED. If it is loading, it gets more time (see
    `_extend_start`). Otherwise it waits for the next probe, until its start timeout ends. In other states
    nothing changes.
    """
    if child.state is not State.STARTING:
        return child, ()
    if report.result.ready:
        return became_ready(child, report.result, now)
    child = replace(child, detail=report.result.detail or child.detail)
    is_loading = report.result.state is State.STARTING
    return (_extend_start(child, report.result, now) if is_loading else child), ()


def _extend_start(child: ChildState, result: ProbeResult, now: float) -> ChildState:
    """Restart the start timeout if loading has progressed, so that the timeout may be shorter than a load."""
    no_progress = (
        result.progress is not None
        and child.load_progress is not None
        and result.progress <= child.load_progress
    )
    if no_progress:
        return child
    timeout_s = child.policy.start_timeout_s
    breaker = child.breaker.extend_trial(now, timeout_s)
    return replace(child, load_progress=result.progress, timer_at=now + timeout_s, breaker=breaker)


def health_probed(child: ChildState, report: HealthProbed, now: float) -> Transition:
    """Update the state of a child that is up; restart one that is hung, or has failed too often in a row."""
    if not child.up:
        return child, ()
    result = report.result
    was_overdue = child.overdue
    child = replace(child, detail=result.detail, overdue=not result.answered and result.alive)
    if result.alive:
        overdue = Emit("health_overdue", result.detail, {"pid": child.pid})
        actions = (overdue,) if child.overdue and not was_overdue else ()
        return replace(child, state=up_state(result), failed_probes=0), actions
    if now < child.ignore_probes_until:
        return child, ()
    child = replace(child, failed_probes=child.failed_probes + 1)
    too_often = result.hung is None and child.failed_probes >= child.policy.probe.failures
    if not (result.hung or too_often):
        return child, ()
    fields = {"pid": child.pid, "failures": child.failed_probes}
    failed = Emit("health_failed", result.detail, fields)
    cause = f"{child.failed_probes} health checks in a row failed: {result.detail or 'no answer'}"
    if result.hung:
        cause = f"it hangs: {result.detail}"
    return prepend((failed,), begin_stop(child, AfterStop.RESTART_AS_DEAD, cause, now))
