"""The inputs of a child's lifecycle: requests, reports about its process, probe results, and time. Pure.

A report about a process carries the number `run` of that process, which is not its PID: each launch of the
child, and each process that is adopted or takes over, gets the next number. The lifecycle ignores reports
about an earlier process.
"""

from __future__ import annotations

from dataclasses import dataclass

from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.states import ExitStatus

# --- requests --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Start the child, even if it was stopped by hand.

    `reset` also closes the breaker and clears intensity and backoff. Only a person may ask for a reset, never
    an automatic loop.
    """

    cause: str = "asked to start"
    reset: bool = False


@dataclass(frozen=True)
class Stop:
    """Stop the child. With `by_hand`, a person asked for the stop, and only the input Start starts the child
    again, even under the next supervisor. Without `by_hand`, the input Restart also starts the child again,
    and so does the next supervisor.
    """

    cause: str = "asked to stop"
    by_hand: bool = True


@dataclass(frozen=True)
class Restart:
    """Stop the child and start it again. `cause` is the reason, for events and the status.

    A child that was stopped by hand stays stopped. A child that waits for its restart delay (BACKOFF) or its
    open circuit breaker (OPEN) is started no earlier than without this request. With `reset`, the lifecycle
    first closes the breaker and forgets the earlier restarts, so that such a child waits for neither.
    """

    cause: str = "asked to restart"
    reset: bool = False


@dataclass(frozen=True)
class StopAndHold:
    """Stop the child, and do not start it again before ReleaseHold, because siblings must stop or start
    first.
    """

    cause: str = ""


@dataclass(frozen=True)
class ReleaseHold:
    """Start the child if it is wanted, because its siblings have stopped or started as the strategy
    requires.
    """


# --- reports about its process ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessFound:
    """A process that an earlier supervisor launched still runs. If `adopt` is False, it is terminated, and
    another is started.
    """

    pid: int
    age_s: float = 0.0
    adopt: bool = True


@dataclass(frozen=True)
class ProcessReplaced:
    """In a handover, the process `pid` has become the child's process in place of its predecessor. Later
    reports about the predecessor are ignored.
    """

    pid: int


@dataclass(frozen=True)
class Launched:
    """A launch has succeeded. `run` is the launch's number among those of the child, and `pid` the PID of the
    new process.
    """

    run: int
    pid: int


@dataclass(frozen=True)
class LaunchFailed:
    """A launch has failed: the child's process with the number `run` was not created; `detail` says why."""

    run: int
    detail: str


@dataclass(frozen=True)
class Exited:
    """The child's process with the number `run` has ended and was reaped, and its process group is gone.

    `status` is its exit code, or the signal that ended it. `last_line` is the last line of its log.
    `productive` is True if it has served requests since it started (see `ChildSpec.productive`).
    """

    run: int
    status: ExitStatus
    last_line: str = ""
    productive: bool = False


@dataclass(frozen=True)
class ReadyProbed:
    """The ready probe of a child in STARTING has returned `result`. `run` is the number of the process that
    was probed, by which a late result about an earlier process is ignored.
    """

    run: int
    result: ProbeResult


@dataclass(frozen=True)
class HealthProbed:
    """The health probe of a child that is up has returned `result`. `run` is the number of the process that
    was probed, by which a late result about an earlier process is ignored.
    """

    run: int
    result: ProbeResult


# --- time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimerFired:
    """The time `timer_at` of the child's state has come."""


@dataclass(frozen=True)
class MachineWoke:
    """The machine has slept for `slept_s` seconds, in which monotonic time stood still."""

    slept_s: float


Input = (
    Start | Stop | Restart | StopAndHold | ReleaseHold
    | ProcessFound | ProcessReplaced | Launched | LaunchFailed | Exited | ReadyProbed | HealthProbed
    | TimerFired | MachineWoke
)  # fmt: skip
