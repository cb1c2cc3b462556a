"""What the lifecycle knows of a child: frozen data, no behavior of note."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from vestal.supervision.lifecycle.breaker import Breaker
from vestal.supervision.lifecycle.intensity import Intensity
from vestal.supervision.lifecycle.restart_policy import RestartPolicy
from vestal.supervision.lifecycle.states import UP, ExitStatus, RestartType, State


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
class ChildState:
    """One child. `run` numbers its processes: news of an earlier one is ignored. Times are monotonic seconds.

    `alive`: a process exists or is being made. `held`: it may not start until its siblings are where they
    should be. `wake_at`: when the shell owes a Tick. `not_before`: memory settles until then after a SIGKILL.
    `grace_until`: until then a failed probe says nothing.
    """

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    restart: RestartType = RestartType.PERMANENT
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
    grace_until: float = float("-inf")
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


def initial_state(
    policy: RestartPolicy,
    *,
    restart: RestartType = RestartType.PERMANENT,
    fatal_exit_codes: frozenset[int] = frozenset({78}),
    ready_probed: bool = True,
    health_probed: bool = True,
    coupled: bool = False,
    now: float = 0.0,
) -> ChildState:
    """A child that has never run."""
    return ChildState(
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
