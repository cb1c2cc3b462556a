"""The vocabulary of supervision: a child's states, restart types, strategies, exit statuses. Pure."""

from __future__ import annotations

import signal as signals
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """The states of a child.

    ABSENT      nothing is installed that could run; this is not a fault, and only callers assign it
    STOPPED     no process, and none is due
    STARTING    a process is being launched, or is not ready yet
    READY       the process answers
    BUSY        the process answers that it is occupied, such as with loading
    DEGRADED    the process answers that it works with restrictions
    STOPPING    the process was sent SIGTERM, and has not ended yet
    BACKOFF     no process; a restart waits for its delay
    OPEN        no process; the circuit breaker is open
    FAILED      no process; the last one exited with a code after which a restart is useless
    """

    ABSENT = "absent"
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    OPEN = "open"
    FAILED = "failed"


UP = frozenset({State.READY, State.BUSY, State.DEGRADED})
"""The states of a child whose process answers."""

DOWN = frozenset({State.ABSENT, State.STOPPED, State.BACKOFF, State.OPEN, State.FAILED})
"""The states of a child without a process."""


class RestartType(StrEnum):
    """When a child that ended is restarted (OTP's restart types).

    PERMANENT always, TRANSIENT after an abnormal end only, TEMPORARY never.
    """

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(StrEnum):
    """Which children are restarted when one of them dies (OTP's strategies).

    ONE_FOR_ONE that child, REST_FOR_ONE that child and those after it, ONE_FOR_ALL all of them.
    """

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"
    ONE_FOR_ALL = "one_for_all"


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: with an exit code, or by a signal.

    Both are None if the status is unknown, because only the parent of a process can read it, and an adopted
    process usually has another parent.
    """

    code: int | None = None
    signal: int | None = None

    def describe(self) -> str:
        """Return the status in words: `exit code 3`, `killed by SIGKILL`."""
        if self.code is not None:
            return f"exit code {self.code}"
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return "ended, exit status unknown (adopted process)"


def signal_name(number: int) -> str:
    """Return `SIGKILL` for 9, and `signal 77` for a number without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True)
class ChildStatus:
    """The status of a child process, all of it from the same moment.

    `since` is when the child entered its state, in seconds since 1970; `uptime_s` is 0 without a process.
    `health_check_failures` counts the failures in a row. `detail` belongs to the state: what a probe found,
    or why there is no process. `cause` is the reason for the child's last start, stop or restart, such as
    `asked to stop`. `next_trial_in_s` is the seconds until the trial start of an open breaker; None if no
    trial is due.

    `last_exit` is the exit status of the last process that ended; None if none has. `last_end` says in words
    why the last process ended or was not created. It is "" if the end was requested. A later request to stop
    the child, or to start it when it is STOPPED or FAILED, also sets it to "".
    """

    state: State
    process_pid: int | None = None
    restart_count: int = 0
    health_check_failures: int = 0
    circuit_breaker_state: str = "closed"
    uptime_s: float = 0.0
    detail: str = ""
    last_exit: ExitStatus | None = None
    since: float = 0.0
    cause: str = ""
    last_end: str = ""
    stopped_by_hand: bool = False
    next_trial_in_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary for JSON."""
        return asdict(self) | {"state": str(self.state), "uptime_s": round(self.uptime_s, 3)}
