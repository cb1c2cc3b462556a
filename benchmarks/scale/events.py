"""Run scheduled calls in the order of simulated time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class EventLoop:
    """Holds the scheduled calls by simulated second. `now` is the time of the call that is running."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, time_s: float, call: Callable[[], None]) -> None:
        """Schedule a call for a simulated time, or for the current one if that time has passed."""
        heapq.heappush(self._due, (max(time_s, self.now), next(self._numbers), call))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Schedule a call after a delay in simulated seconds."""
        self.at(self.now + delay_s, call)

    def run(self, while_true: Callable[[], bool] = lambda: True) -> None:
        """Run the scheduled calls in order, until none is left or `while_true` returns False."""
        while self._due and while_true():
            self.now, _, call = heapq.heappop(self._due)
            call()
