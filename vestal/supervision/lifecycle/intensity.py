"""OTP's restart intensity: a limit on the number of restarts within a sliding window. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Intensity:
    """At most `max_restarts` in any `window_s` seconds. `times` are the past restarts (monotonic)."""

    max_restarts: int = 5
    window_s: float = 300.0
    times: tuple[float, ...] = ()

    def add(self, now: float) -> Intensity:
        """Return the intensity with one more restart, and without those that have left the window."""
        return replace(self, times=(*self.recent(now), now))

    def exceeded(self, now: float) -> bool:
        """Return whether one more restart at `now` would be too many."""
        return len(self.recent(now)) >= self.max_restarts

    def recent(self, now: float) -> tuple[float, ...]:
        """Return the times of the restarts that are within the window."""
        return tuple(at for at in self.times if now - at < self.window_s)
