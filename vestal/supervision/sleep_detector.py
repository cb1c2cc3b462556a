"""Whether the machine slept: the monotonic clock stands still then, the boot clock goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from vestal.supervision.clock import Clock

LOOK_EACH_S = 1.0
LEAST_S = 2.0
"""Less is no sleep: the two clocks are not read in the same instant, and a busy machine may pause between."""


def boot_s() -> float:
    """Seconds since boot with the time asleep."""
    name = "CLOCK_BOOTTIME" if sys.platform == "linux" else "CLOCK_MONOTONIC"
    return time.clock_gettime(getattr(time, name))


def awake_s() -> float:
    """Seconds since boot without the time asleep."""
    name = "CLOCK_MONOTONIC" if sys.platform == "linux" else "CLOCK_UPTIME_RAW"
    return time.clock_gettime(getattr(time, name))


class SleepDetector:
    """Adds up what the machine has slept since this was made."""

    def __init__(self, boot: Callable[[], float] = boot_s, awake: Callable[[], float] = awake_s) -> None:
        self._boot, self._awake = boot, awake
        self._drift_s = boot() - awake()
        self.slept_s = 0.0

    def check(self) -> float:
        """Seconds slept since the last look; 0.0 for none.

        Each look starts anew, so that clocks that go at different speeds never add up to a sleep.
        """
        before, self._drift_s = self._drift_s, self._boot() - self._awake()
        slept_s = self._drift_s - before
        if slept_s < LEAST_S:
            return 0.0
        self.slept_s += slept_s
        return slept_s


async def watch_sleep(watch: SleepDetector, clock: Clock, on_wake: Callable[[float], None]) -> None:
    """Calls `on_wake` with the seconds slept, soon after each wake; until cancelled."""
    while True:
        await clock.sleep(LOOK_EACH_S)
        if slept_s := watch.check():
            on_wake(slept_s)
