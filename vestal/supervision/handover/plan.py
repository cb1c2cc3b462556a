"""Decide what follows in one handover from a process, the predecessor, to another one, its successor. Pure.

    PREPARING    the successor starts while the predecessor serves
    REFUSED      the successor ended, hung, or is no longer wanted: it is killed; the predecessor goes on
    TAKING_OVER  the predecessor was asked to hand over; the successor is the child's process from here on
    TAKEN_OVER   the successor serves; the predecessor stays until its last client has what it waits for
    ENDING       the predecessor's time is over, or the child is to stop: SIGTERM, then SIGKILL

Nothing leads back from TAKING_OVER: a predecessor that was asked accepts no more connections. If the
successor dies then, its supervisor starts another one, as for any process that dies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from vestal.supervision.lifecycle.restart_policy import HandoverPolicy

KILL_AGAIN_S = 5.0


class Stage(StrEnum):
    """How far a handover has come."""

    PREPARING = "preparing"
    REFUSED = "refused"
    TAKING_OVER = "taking_over"
    TAKEN_OVER = "taken_over"
    ENDING = "ending"


# --- inputs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SuccessorReady:
    """The successor has reported that it can take over."""


@dataclass(frozen=True)
class SuccessorServes:
    """The successor has reported that it serves, or has answered a probe."""


@dataclass(frozen=True)
class SuccessorEnded:
    """The successor's process has ended; `why` has its exit status and its last line of output."""

    why: str


@dataclass(frozen=True)
class PredecessorEnded:
    """The predecessor's process has ended. In the stage PREPARING, this input also means that the process no
    longer serves, as when it is being stopped.
    """


@dataclass(frozen=True)
class TimerFired:
    """The time `timer_at` of the handover has come."""


@dataclass(frozen=True)
class Cancelled:
    """The child is to stop, and its handovers with it."""

    cause: str


Input = SuccessorReady | SuccessorServes | SuccessorEnded | PredecessorEnded | TimerFired | Cancelled

# --- actions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MakeSuccessorTheChild:
    """Write a PID file that records the child's present process as the predecessor. Then let the supervisor
    watch the successor as the child's process instead, and write its PID to the child's own PID file.

    This comes before AskToHandOver. If the supervisor dies between the two actions, the next supervisor finds
    both processes by their PID files.
    """


@dataclass(frozen=True)
class AskToHandOver:
    """Send SIGUSR1 to the predecessor."""


@dataclass(frozen=True)
class KillSuccessor:
    """Send SIGKILL to the successor, which serves no client yet."""


@dataclass(frozen=True)
class TerminatePredecessor:
    """Send SIGTERM to the predecessor."""


@dataclass(frozen=True)
class KillPredecessor:
    """Send SIGKILL to the predecessor's process group."""


@dataclass(frozen=True)
class Emit:
    """Publish an event about the child. `event` is the event's name. `cause` says in words why it happened;
    empty if the name says enough.
    """

    event: str
    cause: str = ""


Action = MakeSuccessorTheChild | AskToHandOver | KillSuccessor | TerminatePredecessor | KillPredecessor | Emit


@dataclass(frozen=True)
class Handover:
    """The state of one handover. `timer_at` is when a TimerFired is due (monotonic seconds); None for never.

    `why` says why the handover was refused. `successor_lives` says whether the process that was launched as
    the successor still runs; it is not kept up to date after TAKING_OVER. `predecessor_lives` says whether
    the predecessor still runs and, in PREPARING, serves; it is not kept up to date after a refusal.
    """

    policy: HandoverPolicy
    stage: Stage
    timer_at: float | None
    why: str = ""
    successor_lives: bool = True
    predecessor_lives: bool = True

    @property
    def over(self) -> bool:
        """Return whether nothing is left to do."""
        return not (self.successor_lives if self.stage is Stage.REFUSED else self.predecessor_lives)

    @property
    def decided(self) -> bool:
        """Return whether the outcome is known, so that another handover may begin."""
        return self.over or self.stage in (Stage.TAKEN_OVER, Stage.ENDING)


Step = tuple[Handover, tuple[Action, ...]]


def begin(policy: HandoverPolicy, now: float) -> Handover:
    """Return the first state, PREPARING, of a handover to a successor that has just been launched."""
    return Handover(policy, Stage.PREPARING, now + policy.ready_timeout_s)


def resume(policy: HandoverPolicy, now: float) -> Step:
    """Return the state and first action of a handover that an earlier supervisor of the child did not
    complete. The PID file of the predecessor does not say whether the predecessor was already asked to hand
    over. So the first action is to ask the predecessor, perhaps for the second time.
    """
    return Handover(policy, Stage.TAKING_OVER, now + policy.release_timeout_s), (AskToHandOver(),)


def step(handover: Handover, received: Input, now: float) -> Step:
    """Return the next state of the handover, and the actions to carry out in order."""
    match received:
        case SuccessorReady() if handover.stage is Stage.PREPARING:
            timer_at = now + handover.policy.release_timeout_s
            taking = replace(handover, stage=Stage.TAKING_OVER, timer_at=timer_at)
            return taking, (MakeSuccessorTheChild(), AskToHandOver())
        case SuccessorServes() if handover.stage is Stage.TAKING_OVER:
            timer_at = now + handover.policy.linger_s
            return replace(handover, stage=Stage.TAKEN_OVER, timer_at=timer_at), (Emit("child_handed_over"),)
        case SuccessorEnded(why):
            return _successor_ended(handover, why, now)
        case PredecessorEnded():
            return _predecessor_ended(handover, now)
        case TimerFired() if handover.timer_at is not None and now >= handover.timer_at:
            return _timer_fired(handover, now)
        case Cancelled(cause) if handover.stage is Stage.PREPARING:
            return _refuse(handover, cause, now)
        case Cancelled() if handover.stage in (Stage.TAKING_OVER, Stage.TAKEN_OVER):
            return _end_predecessor(handover, now)
    return handover, ()


def _successor_ended(handover: Handover, why: str, now: float) -> Step:
    if not handover.successor_lives:
        return handover, ()
    handover = replace(handover, successor_lives=False)
    if handover.stage is Stage.PREPARING:
        return _refuse(handover, why, now)
    if handover.stage is Stage.TAKING_OVER:
        # Its supervisor starts another one, which reports by its probe only. It needs the time of a start.
        wait_s = max(handover.policy.release_timeout_s, handover.policy.ready_timeout_s)
        return replace(handover, timer_at=now + wait_s), ()
    return handover, ()


def _predecessor_ended(handover: Handover, now: float) -> Step:
    handover = replace(handover, predecessor_lives=False)
    if handover.stage is Stage.PREPARING:
        why = "the old process ended meanwhile; the one that is started in its place is new"
        return _refuse(handover, why, now)
    if handover.stage is Stage.REFUSED:
        return handover, ()
    return replace(handover, timer_at=None), (Emit("predecessor_ended"),)


def _timer_fired(handover: Handover, now: float) -> Step:
    policy = handover.policy
    match handover.stage:
        case Stage.PREPARING:
            why = f"the new process was not ready within {policy.ready_timeout_s:g} s"
            return _refuse(handover, why, now)
        case Stage.REFUSED:
            return replace(handover, timer_at=now + KILL_AGAIN_S), (KillSuccessor(),)
        case Stage.TAKING_OVER:
            cause = f"it did not hand over within {policy.release_timeout_s:g} s"
            killed = replace(handover, stage=Stage.ENDING, timer_at=now + KILL_AGAIN_S)
            return killed, (KillPredecessor(), Emit("predecessor_killed", cause))
        case Stage.TAKEN_OVER:
            return _end_predecessor(handover, now)
    cause = "it did not end on SIGTERM"
    again = replace(handover, timer_at=now + KILL_AGAIN_S)
    return again, (KillPredecessor(), Emit("predecessor_killed", cause))


def _refuse(handover: Handover, why: str, now: float) -> Step:
    """End the handover in REFUSED: the predecessor goes on, and the successor, if it lives, is killed."""
    refused = Emit("handover_refused", why)
    if not handover.successor_lives:
        return replace(handover, stage=Stage.REFUSED, timer_at=None, why=why), (refused,)
    handover = replace(handover, stage=Stage.REFUSED, timer_at=now + KILL_AGAIN_S, why=why)
    return handover, (KillSuccessor(), refused)


def _end_predecessor(handover: Handover, now: float) -> Step:
    ending = replace(handover, stage=Stage.ENDING, timer_at=now + handover.policy.stop_timeout_s)
    return ending, (TerminatePredecessor(),)
