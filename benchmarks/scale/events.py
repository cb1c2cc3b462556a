"""The event loop of the simulation: calls what is due, in the order of time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class EventLoop:
    """Holds what is to be called at which simulated second. `now` is the time of the running call."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, time_s: float, call: Callable[[], None]) -> None:
        """Call it at a time, or now if that is over."""
        heapq.heappush(self._due, (max(time_s, self.now), next(self._numbers), call))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it after a delay."""
        self.at(self.now + delay_s, call)

    def run(self, while_true: Callable[[], bool] = lambda: True) -> None:
        """Call everything that is due, until nothing is left or the condition is false."""
        while self._due and while_true():
            self.now, _, call = heapq.heappop(self._due)
            call()
