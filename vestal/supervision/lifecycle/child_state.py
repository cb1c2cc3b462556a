"""The state of one child as immutable data. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from vestal.supervision.lifecycle.breaker import Breaker
from vestal.supervision.lifecycle.restart_intensity import Intensity
from vestal.supervision.lifecycle.restart_policy import RestartPolicy
from vestal.supervision.lifecycle.states import UP, ExitStatus, RestartType, State


class AfterStop(StrEnum):
    """The next step of the lifecycle once the process of a child in STOPPING has ended.

    STAY_STOPPED     none: the child stays stopped
    START_AGAIN      a start; a restart was requested, so it counts neither for the delay before restarts
                     (backoff) nor for the limit on restarts in a period (intensity)
    RESTART_AS_DEAD  the same as after a process that died: the child hung, or was not ready in time
    STAY_ON_HOLD     none before the input ReleaseHold, because siblings have to stop or start first
    """

    STAY_STOPPED = "stay_stopped"
    START_AGAIN = "start_again"
    RESTART_AS_DEAD = "restart_as_dead"
    STAY_ON_HOLD = "stay_on_hold"


class ActiveProbe(StrEnum):
    """The probe that has to run for a child in its present state."""

    NONE = "none"
    READY = "ready"
    HEALTH = "health"


@dataclass(frozen=True)
class ChildState:
    """The whole state of one child. Times are monotonic seconds.

    What the supervisor and the child spec set:
        `policy`              the limits of restarts, starts and stops
        `restart`             when a child that ended is restarted
        `fatal_exit_codes`    exit codes after which a restart is useless
        `coupled`             the child's death restarts siblings too (strategies other than ONE_FOR_ONE)

    What is wanted:
        `wanted`              the child should run
        `stopped_by_hand`     a person stopped it; only a person's Start ends this
        `on_hold`             it may not start before ReleaseHold
        `after_stop`          what follows once STOPPING is over

    When something is due:
        `timer_at`            when the lifecycle needs a TimerFired; None for never
        `no_start_before`     no launch before then: after a SIGKILL, the system frees the memory late
        `ignore_probes_until` failed health probes do not count before then: the machine has just woken

    What is counted:
        `breaker`             the circuit breaker, which too many failed starts or restarts open
        `intensity`           the latest restarts, and how many of them a period may have
        `backoff_attempt`     the exponent of the next backoff delay
        `next_start_weight`   what the next start counts for the restart intensity; 0 for a requested start
        `restarts`            the restarts since the child was last stopped, also under earlier supervisors
        `failed_probes`       failed health probes in a row

    The process:
        `run`                 the number of the present or last process: each launch, and each process that is
                              adopted or takes over, adds 1; reports with another number are ignored
        `alive`               a process exists or is being launched
        `kill_sent`           SIGKILL was sent to it
        `load_progress`       the progress that the last ready probe reported
        `overdue`             the last health probe got no answer, but did not count as failed, because the
                              kernel shows that the process works (see `health.silence`)

    In words, for events and the status:
        `cause`               the reason for the last start, stop or restart
        `detail`              what a probe found, or why there is no process; it belongs to the present state
        `last_end`            why the last process ended or was not created; "" if its end was requested

    `last_exit` is the exit status of the last process that ended, even if its end was requested.
    """

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    restart: RestartType = RestartType.PERMANENT
    fatal_exit_codes: frozenset[int] = frozenset({78})
    has_ready_probe: bool = True
    has_health_probe: bool = True
    coupled: bool = False
    breaker: Breaker = field(default_factory=Breaker)
    intensity: Intensity = field(default_factory=Intensity)

    state: State = State.STOPPED
    wanted: bool = False
    stopped_by_hand: bool = False
    on_hold: bool = False
    after_stop: AfterStop = AfterStop.STAY_STOPPED
    timer_at: float | None = None
    no_start_before: float = float("-inf")
    ignore_probes_until: float = float("-inf")
    backoff_attempt: int = 0
    next_start_weight: float = 0.0
    restarts: int = 0
    failed_probes: int = 0
    cause: str = ""
    detail: str = ""
    last_end: str = ""
    last_exit: ExitStatus | None = None

    run: int = 0
    pid: int | None = None
    alive: bool = False
    kill_sent: bool = False
    started_at: float = 0.0
    ready_at: float | None = None
    load_progress: float | None = None
    overdue: bool = False

    @property
    def up(self) -> bool:
        """Return whether the child's process answers."""
        return self.state in UP

    @property
    def active_probe(self) -> ActiveProbe:
        """Return the probe that has to run now."""
        if self.state is State.STARTING and self.pid is not None and self.has_ready_probe:
            return ActiveProbe.READY
        if self.up and self.has_health_probe:
            return ActiveProbe.HEALTH
        return ActiveProbe.NONE


def initial_state(
    policy: RestartPolicy,
    *,
    restart: RestartType = RestartType.PERMANENT,
    fatal_exit_codes: frozenset[int] = frozenset({78}),
    has_ready_probe: bool = True,
    has_health_probe: bool = True,
    coupled: bool = False,
) -> ChildState:
    """Return the state of a child that has never run.

    A child that ends with one of `fatal_exit_codes` is not restarted. Without a ready probe, a child is ready
    as soon as it is launched. Without a health probe, only the end of its process is noticed. `coupled` says
    whether its death restarts siblings too.
    """
    return ChildState(
        policy=policy,
        restart=restart,
        fatal_exit_codes=fatal_exit_codes,
        has_ready_probe=has_ready_probe,
        has_health_probe=has_health_probe,
        coupled=coupled,
        breaker=Breaker(policy.breaker),
        intensity=policy.intensity,
    )
