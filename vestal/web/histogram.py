"""A histogram of durations, cheap enough for every request. Pure; `metrics` shows it to Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Histogram:
    """Counts observations by size. `bounds` are upper bounds, inclusive and in rising order."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        self.total += value
        self._counts[bisect_left(self.bounds, value)] += 1

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[int]:
        """Return for each bound, and then for infinity, how many observations were at most as large."""
        return list(accumulate(self._counts))
