"""When a child is restarted, and how long each step may take: all the limits in one place. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from vestal.supervision.lifecycle.breaker import BreakerPolicy
from vestal.supervision.lifecycle.probe import ProbePolicy
from vestal.supervision.lifecycle.restart_intensity import Intensity


@dataclass(frozen=True)
class Backoff:
    """The delay before a restart: `min(base_s · 2^n, max_s)` seconds after `n` earlier restarts."""

    base_s: float = 2.0
    max_s: float = 60.0

    def delay(self, n: int) -> float:
        """Return the seconds to wait after `n` earlier restarts."""
        if n > 64:  # 2^n would overflow a float, and has exceeded max_s long before
            return self.max_s
        return min(self.base_s * 2.0 ** max(0, n), self.max_s)


PRODUCTIVE_WEIGHT = 0.1
"""The weight of a restart after a process that served clients, which is not a crash loop. By default, 50 such
restarts are allowed within 5 minutes, but only 5 others.
"""


@dataclass(frozen=True)
class RestartPolicy:
    """The limits of one child's restarts, starts and stops. All times are in seconds.

    A process that served requests before it died (see `ChildSpec.productive`) is restarted without delay,
    unless the limit `intensity` is exceeded. For this limit, its restart counts as `productive_weight`
    restarts, and from then on each earlier restart counts no more than that either, because the child is not
    in a crash loop. With a weight of 0.1, ten times as many such restarts are allowed.

    `backoff`                  the delays before restarts
    `intensity`                how many restarts a window of time allows; one more opens the circuit breaker
    `breaker`                  how many failed starts in a row open the circuit breaker, and for how long
    `start_timeout_s`          from the launch until the child must be ready
    `stop_timeout_s`           from SIGTERM to SIGKILL
    `planned_stop_timeout_s`   the same for a stop that was requested, in which the child may finish its work;
                               None: `stop_timeout_s`
    `stable_after_s`           a child that was ready for at least this long before it died is restarted
                               without delay
    `productive_weight`        what the restart of a process that served requests counts for `intensity`; any
                               other restart after a death counts 1 when it is made
    `settle_after_kill_s`      from a SIGKILL to the next launch: Metal returns memory late
    `wake_grace_s`             for this long after the machine has slept, failed probes do not count
    `probe`                    how often a child that is up is probed, and when failed probes restart it
    """

    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity = field(default_factory=Intensity)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0
    stable_after_s: float = 10.0
    productive_weight: float = 1.0
    settle_after_kill_s: float = 0.0
    wake_grace_s: float = 5.0
    probe: ProbePolicy = field(default_factory=ProbePolicy)
    planned_stop_timeout_s: float | None = None

    def stop_timeout(self, planned: bool) -> float:
        """Return the seconds from SIGTERM to SIGKILL. `planned` is False if the child is stopped because it
        hangs, fails its health probes or was not ready in time, and True for any other stop.
        """
        if planned and self.planned_stop_timeout_s is not None:
            return self.planned_stop_timeout_s
        return self.stop_timeout_s


@dataclass(frozen=True)
class HandoverPolicy:
    """How long each part of a handover to a successor may take. All times are in seconds.

    `ready_timeout_s`    from the successor's launch until it reports that it can take over
    `release_timeout_s`  from the request to hand over until the successor serves; if this takes longer, the
                         predecessor is killed
    `linger_s`           how long the predecessor may serve its last clients once the successor serves
    `stop_timeout_s`     from the predecessor's SIGTERM to its SIGKILL
    """

    ready_timeout_s: float = 60.0
    release_timeout_s: float = 30.0
    linger_s: float = 900.0
    stop_timeout_s: float = 10.0
