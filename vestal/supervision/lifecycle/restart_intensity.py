"""A limit on the restarts within a sliding window of time, like OTP's restart intensity. Unlike in OTP, a
restart may count as less than one: each has a weight. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ROUNDING = 1e-9
"""A tolerance for rounding errors: ten weights of 0.1 make a little less than 1."""


@dataclass(frozen=True)
class Intensity:
    """A limit of at most `max_restarts` in any `window_s` seconds. `restarts` are the past restarts, each
    with its time (monotonic) and its weight: ten restarts of weight 0.1 count as one.
    """

    max_restarts: int = 5
    window_s: float = 300.0
    restarts: tuple[tuple[float, float], ...] = ()

    @property
    def times(self) -> tuple[float, ...]:
        """Return the times (monotonic seconds) of all restarts in `restarts`, oldest first. Those older than
        the window are among them until the next `add` leaves them out.
        """
        return tuple(at for at, _ in self.restarts)

    def add(self, now: float, weight: float = 1.0) -> Intensity:
        """Return the intensity with one more restart, made at `now`, and without the restarts that are older
        than the window. The new one counts as `weight` restarts: less than 1 after a process that served
        requests (see `RestartPolicy.productive_weight`).
        """
        return replace(self, restarts=(*self.recent_restarts(now), (now, weight)))

    def exceeded(self, now: float, weight: float = 1.0) -> bool:
        """Return whether one more restart of this weight at `now` would be too many."""
        counted = sum(each for _, each in self.recent_restarts(now))
        return counted + weight > self.max_restarts + ROUNDING

    def lighten(self, weight: float) -> Intensity:
        """Return the intensity in which each past restart counts at most `weight`."""
        return replace(self, restarts=tuple((at, min(each, weight)) for at, each in self.restarts))

    def recent(self, now: float) -> tuple[float, ...]:
        """Return the times of the restarts that are within the window."""
        return tuple(at for at, _ in self.recent_restarts(now))

    def recent_restarts(self, now: float) -> tuple[tuple[float, float], ...]:
        """Return the time and the weight of each restart that is less than `window_s` seconds old at `now`.
        The weight is what the restart counts toward `max_restarts`.
        """
        return tuple((at, weight) for at, weight in self.restarts if now - at < self.window_s)
