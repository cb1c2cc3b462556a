"""Detect that the machine has slept: its boot clock advances, while its monotonic clock stands still."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from vestal.supervision.clock import Clock, next_tick

CHECK_INTERVAL_S = 1.0
MIN_SLEEP_S = 2.0
"""A shorter difference does not count as sleep, because a busy machine may pause between reading the two
clocks.
"""


def boot_s() -> float:
    """Return the seconds since boot, including the time that the machine slept."""
    name = "CLOCK_BOOTTIME" if sys.platform == "linux" else "CLOCK_MONOTONIC"
    return time.clock_gettime(getattr(time, name))


def awake_s() -> float:
    """Return the seconds since boot in which the machine was awake."""
    name = "CLOCK_MONOTONIC" if sys.platform == "linux" else "CLOCK_UPTIME_RAW"
    return time.clock_gettime(getattr(time, name))


class SleepDetector:
    """Compares the clocks `boot` and `awake`. `slept_s` is how many seconds the machine has slept since the
    detector was created.
    """

    def __init__(self, boot: Callable[[], float] = boot_s, awake: Callable[[], float] = awake_s) -> None:
        self._boot, self._awake = boot, awake
        self._difference_s = boot() - awake()
        self.slept_s = 0.0

    def check(self) -> float:
        """Return the seconds that the machine slept since the last check; 0.0 for none.

        Each check compares with the last one only, so that a small difference in the clocks' speed never adds
        up to a sleep.
        """
        before, self._difference_s = self._difference_s, self._boot() - self._awake()
        slept_s = self._difference_s - before
        if slept_s < MIN_SLEEP_S:
            return 0.0
        self.slept_s += slept_s
        return slept_s


async def watch_sleep(detector: SleepDetector, clock: Clock, on_wake: Callable[[float], None]) -> None:
    """Call `on_wake` soon after each wake of the machine, with the seconds that it slept, until cancelled."""
    while True:
        await next_tick(clock, CHECK_INTERVAL_S)
        if slept_s := detector.check():
            on_wake(slept_s)
