"""What the lifecycle knows, what it is told, and what it asks for: frozen data, no behaviour of note."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from supervision.breaker import Breaker
from supervision.intensity import Intensity
from supervision.policy import RestartPolicy
from supervision.probe import ProbeResult
from supervision.states import UP, ExitStatus, Restart, State


class Then(StrEnum):
    """What follows when STOPPING is over."""

    STOP = "stop"
    RENEW = "renew"  # a restart that was asked for: not charged
    RESTART = "restart"  # a restart that the child earned (hung, never ready): charged like a crash
    HOLD = "hold"  # waits for its siblings, then starts again


class Watch(StrEnum):
    """Which probe the shell has to keep asking."""

    NONE = "none"
    READY = "ready"
    HEALTH = "health"


@dataclass(frozen=True)
class Model:
    """One child. `run` numbers its processes: news of an earlier one is ignored. Times are monotonic seconds.

    `alive`: a process exists or is being made. `held`: it may not start until its siblings are where they
    should be. `wake_at`: when the shell owes a Tick. `not_before`: memory settles until then after a SIGKILL.
    """

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    restart: Restart = Restart.PERMANENT
    fatal_exit_codes: frozenset[int] = frozenset({78})
    ready_probed: bool = True
    health_probed: bool = True
    coupled: bool = False
    breaker: Breaker = field(default_factory=Breaker)
    intensity: Intensity = field(default_factory=Intensity)

    state: State = State.STOPPED
    since: float = 0.0
    wanted: bool = False
    by_hand: bool = False
    held: bool = False
    wake_at: float | None = None
    not_before: float = float("-inf")
    attempt: int = 0
    charged: bool = False
    restarts: int = 0
    failures: int = 0
    then: Then = Then.STOP
    cause: str = ""
    detail: str = ""
    last_exit: ExitStatus | None = None

    run: int = 0
    pid: int | None = None
    alive: bool = False
    killed: bool = False
    started_at: float = 0.0
    ready_at: float | None = None
    progress: float | None = None

    @property
    def up(self) -> bool:
        return self.state in UP

    @property
    def watch(self) -> Watch:
        """The probe that belongs to this state."""
        if self.state is State.STARTING and self.pid is not None and self.ready_probed:
            return Watch.READY
        if self.up and self.health_probed:
            return Watch.HEALTH
        return Watch.NONE


def model_of(
    policy: RestartPolicy,
    *,
    restart: Restart = Restart.PERMANENT,
    fatal_exit_codes: frozenset[int] = frozenset({78}),
    ready_probed: bool = True,
    health_probed: bool = True,
    coupled: bool = False,
    now: float = 0.0,
) -> Model:
    """A child that has never run."""
    return Model(
        policy=policy,
        restart=restart,
        fatal_exit_codes=fatal_exit_codes,
        ready_probed=ready_probed,
        health_probed=health_probed,
        coupled=coupled,
        breaker=Breaker(policy.breaker),
        intensity=policy.intensity,
        since=now,
    )


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


Input = (
    Start | Stop | Renew | Hold | Release | Adopted | Launched | LaunchFailed
    | Exited | ReadyAnswered | HealthAnswered | Tick
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
