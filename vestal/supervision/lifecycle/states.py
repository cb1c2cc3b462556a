"""The words: states of a child, how it ended, when it is restarted, and what is told of it."""

from __future__ import annotations

import signal as signals
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """What a child is in. ABSENT (nothing to run) is not a fault; no child enters it by itself."""

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
"""It answers."""

DOWN = frozenset({State.ABSENT, State.STOPPED, State.BACKOFF, State.OPEN, State.FAILED})
"""It has no process."""


class RestartType(StrEnum):
    """OTP's restart types: always; only after an abnormal end; never."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(StrEnum):
    """Who is restarted when one child dies: it alone; it and those after it; all."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"
    ONE_FOR_ALL = "one_for_all"


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended. Neither code nor signal: it was adopted, and only its parent was told."""

    code: int | None = None
    signal: int | None = None

    @property
    def known(self) -> bool:
        return self.code is not None or self.signal is not None

    def describe(self) -> str:
        if self.code is not None:
            return f"exit code {self.code}"
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return "ended, exit status unknown (adopted process)"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 77` for what has no name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True)
class ChildStatus:
    """A child as told to people and programs (R3.7). `since` is wall time; `uptime_s` 0 without process."""

    state: State
    process_pid: int | None = None
    restart_count: int = 0
    health_check_failures: int = 0
    circuit_breaker_state: str = "closed"
    uptime_s: float = 0.0
    detail: str = ""
    last_exit: ExitStatus | None = None
    since: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"state": str(self.state), "uptime_s": round(self.uptime_s, 3)}
