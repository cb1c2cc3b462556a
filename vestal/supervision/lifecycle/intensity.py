"""OTP's restart intensity: so many restarts in so long, and no more (R3.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Intensity:
    """At most `max_restarts` in any `window_s` seconds; `times` are the restarts made (monotonic seconds)."""

    max_restarts: int = 5
    window_s: float = 300.0
    times: tuple[float, ...] = ()

    def add(self, now: float) -> Intensity:
        """One more restart at `now`; those that have left the window are forgotten."""
        return replace(self, times=(*self.recent(now), now))

    def exceeded(self, now: float) -> bool:
        """Whether one more restart at `now` would be one too many."""
        return len(self.recent(now)) >= self.max_restarts

    def recent(self, now: float) -> tuple[float, ...]:
        return tuple(at for at in self.times if now - at < self.window_s)
