"""What the lifecycle is told (inputs) and what it asks for (actions)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.states import ExitStatus

# --- what it is told -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Bring it up. `reset` forgets breaker, intensity and backoff: a person's word, never a loop's."""

    cause: str = "asked to start"
    reset: bool = False


@dataclass(frozen=True)
class Stop:
    """End it. By hand: it stays stopped until a Start."""

    cause: str = "asked to stop"
    by_hand: bool = True


@dataclass(frozen=True)
class Renew:
    """End it and start it again. Leaves a child stopped by hand, an open breaker and a backoff alone."""

    cause: str = "asked to restart"
    reset: bool = False


@dataclass(frozen=True)
class Hold:
    """End it, and start it again only after Release."""

    cause: str = ""


@dataclass(frozen=True)
class Release:
    """It may start."""


@dataclass(frozen=True)
class Adopted:
    """A process of an earlier supervisor was found. Not `keep`: end it first, then start."""

    pid: int
    age_s: float = 0.0
    keep: bool = True


@dataclass(frozen=True)
class Launched:
    run: int
    pid: int


@dataclass(frozen=True)
class LaunchFailed:
    run: int
    detail: str


@dataclass(frozen=True)
class Exited:
    """Reaped, and its group gone. `detail`: its last words."""

    run: int
    status: ExitStatus
    detail: str = ""


@dataclass(frozen=True)
class ReadyAnswered:
    run: int
    result: ProbeResult


@dataclass(frozen=True)
class HealthAnswered:
    run: int
    result: ProbeResult


@dataclass(frozen=True)
class Tick:
    """`wake_at` has come."""


@dataclass(frozen=True)
class Woke:
    """The machine slept for `slept_s`, while monotonic time stood still."""

    slept_s: float


Input = (
    Start | Stop | Renew | Hold | Release | Adopted | Launched | LaunchFailed
    | Exited | ReadyAnswered | HealthAnswered | Tick | Woke
)  # fmt: skip


# --- what it asks for ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    run: int


@dataclass(frozen=True)
class Terminate:
    run: int


@dataclass(frozen=True)
class Kill:
    run: int


@dataclass(frozen=True)
class Emit:
    event: str
    cause: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Persist:
    """The memory (`record.to_record`) changed."""


@dataclass(frozen=True)
class Fell:
    """A coupled child died unplanned and waits: its siblings are to be brought in line."""


Action = Launch | Terminate | Kill | Emit | Persist | Fell
