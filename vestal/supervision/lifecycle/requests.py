"""Handle the requests to a child, in each of its states: start, stop, restart, hold, release. Pure."""

from __future__ import annotations

from dataclasses import replace

from vestal.supervision.lifecycle.actions import Emit, SaveState, Transition, prepend
from vestal.supervision.lifecycle.breaker import Breaker
from vestal.supervision.lifecycle.child_state import AfterStop, ChildState
from vestal.supervision.lifecycle.inputs import ReleaseHold, Restart, Start, Stop, StopAndHold
from vestal.supervision.lifecycle.start import launch_if_allowed
from vestal.supervision.lifecycle.states import State
from vestal.supervision.lifecycle.stop import begin_stop


def start(child: ChildState, request: Start, now: float) -> Transition:
    """Start the child. A child in BACKOFF or OPEN starts when its delay is over; one in STOPPING, once it has
    stopped.
    """
    child = _reset(child) if request.reset else child
    child = replace(child, wanted=True, stopped_by_hand=False, cause=request.cause)
    if child.state is State.STOPPING:
        return replace(child, after_stop=AfterStop.START_AGAIN), (SaveState(),)
    if child.state in (State.STOPPED, State.FAILED, State.ABSENT):
        child = replace(child, backoff_attempt=0, next_start_weight=0.0, detail="", last_end="")
    elif child.alive or not request.reset:  # it runs, or it waits in BACKOFF or OPEN
        return child, (SaveState(),)
    return prepend((SaveState(),), launch_if_allowed(child, now))


def stop(child: ChildState, request: Stop, now: float) -> Transition:
    """Stop the child. A child in BACKOFF or OPEN has no process, and is in STOPPED at once."""
    by_hand = child.stopped_by_hand or request.by_hand
    child = replace(child, wanted=False, stopped_by_hand=by_hand, on_hold=False)
    if child.state is State.STOPPING:
        return replace(child, after_stop=AfterStop.STAY_STOPPED, cause=request.cause), (SaveState(),)
    if child.alive:
        return prepend((SaveState(),), begin_stop(child, AfterStop.STAY_STOPPED, request.cause, now))
    stopped = () if child.state is State.STOPPED else (Emit("child_stopped", request.cause),)
    child = replace(
        child, state=State.STOPPED, timer_at=None, cause=request.cause, detail="", last_end="", restarts=0
    )
    return child, (*stopped, SaveState())


def restart(child: ChildState, request: Restart, now: float) -> Transition:
    """Stop the child and start it again. A child without a process is only started.

    A request to stop has precedence: a child that was stopped by hand, or is being stopped, stays stopped.
    """
    is_stopping = child.state is State.STOPPING
    if child.stopped_by_hand or (is_stopping and child.after_stop is AfterStop.STAY_STOPPED):
        return child, ()
    if is_stopping:
        return (child if child.on_hold else replace(child, after_stop=AfterStop.START_AGAIN)), ()
    if child.alive:
        child = _reset(child) if request.reset else child
        return begin_stop(replace(child, wanted=True), AfterStop.START_AGAIN, request.cause, now)
    return start(child, Start(request.cause, request.reset), now)


def stop_and_hold(child: ChildState, request: StopAndHold, now: float) -> Transition:
    """Stop the child if it runs, and do not start it before it is released."""
    child = replace(child, on_hold=True)
    if child.alive and child.state is not State.STOPPING:
        return begin_stop(child, AfterStop.STAY_ON_HOLD, request.cause, now)
    return child, ()


def release_hold(child: ChildState, _: ReleaseHold, now: float) -> Transition:
    """End the hold that StopAndHold began, and start the child if it is wanted and STOPPED.

    A child in BACKOFF or OPEN starts when its restart delay, or its breaker's open time, is over.
    """
    child = replace(child, on_hold=False)
    if child.wanted and child.state is State.STOPPED and not child.alive:
        return launch_if_allowed(child, now)
    return child, ()


def _reset(child: ChildState) -> ChildState:
    """Return the child as if it had never failed."""
    return replace(
        child, breaker=Breaker(child.policy.breaker), intensity=child.policy.intensity, backoff_attempt=0
    )
