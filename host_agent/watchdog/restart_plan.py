"""Decide when a dead agent is started again: at once, then with growing delays. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vestal.supervision.lifecycle.restart_intensity import Intensity
from vestal.supervision.lifecycle.restart_policy import Backoff

STABLE_AFTER_S = 60.0


@dataclass(frozen=True)
class RestartPlan:
    """A record of the agent's recent starts, from which the delay before the next start follows.

    The first start, and each start after a run of at least STABLE_AFTER_S, is immediate. With each further
    death the delay doubles, from 2 s to 5 min (`backoff`). At most 5 starts may lie within 5 min, and a
    further start is delayed until that limit allows it. `intensity` has this limit, and the times of the
    recent starts in monotonic seconds. `starts` counts the starts since the last run of at least
    STABLE_AFTER_S.
    """

    backoff: Backoff = field(default_factory=lambda: Backoff(2.0, 300.0))
    intensity: Intensity = field(default_factory=lambda: Intensity(max_restarts=5, window_s=300.0))
    starts: int = 0

    def agent_died(self, now: float, lived_s: float) -> tuple[RestartPlan, float]:
        """Return the plan with the next start added, and the seconds from `now` until that start. `lived_s`
        is how many seconds the dead agent ran.
        """
        starts = 0 if lived_s >= STABLE_AFTER_S else self.starts
        wait_s = self.backoff.delay(starts - 1) if starts else 0.0
        recent = self.intensity.recent(now)
        if len(recent) >= self.intensity.max_restarts:
            oldest = sorted(recent)[-self.intensity.max_restarts]
            wait_s = max(wait_s, oldest + self.intensity.window_s - now)
        return replace(self, starts=starts + 1, intensity=self.intensity.add(now + wait_s)), wait_s
