"""All that decides when a child is started again, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from vestal.supervision.lifecycle.backoff import Backoff
from vestal.supervision.lifecycle.breaker import BreakerPolicy
from vestal.supervision.lifecycle.intensity import Intensity
from vestal.supervision.lifecycle.probe import ProbePolicy


@dataclass(frozen=True)
class RestartPolicy:
    """Seconds throughout. A run of `stable_after_s` since it was ready earns one restart without delay.

    `stop_timeout_s` is what SIGTERM gets before SIGKILL; a planned stop (by hand, by the supervisor, a
    restart that was asked for) gets `planned_stop_timeout_s` where it is set, to finish what is in flight.
    Failed probes do not count for `wake_grace_s` after the machine's sleep.
    `settle_after_kill_s` delays the start that follows a SIGKILL (R3.6: Metal's memory comes back late).
    """

    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity = field(default_factory=Intensity)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0
    stable_after_s: float = 10.0
    settle_after_kill_s: float = 0.0
    wake_grace_s: float = 5.0
    probe: ProbePolicy = field(default_factory=ProbePolicy)
    planned_stop_timeout_s: float | None = None

    def stop_time(self, planned: bool) -> float:
        """How long SIGTERM is given."""
        if planned and self.planned_stop_timeout_s is not None:
            return self.planned_stop_timeout_s
        return self.stop_timeout_s
