"""Whether the machine slept: the monotonic clock stands still then, the boot clock goes on (field notes)."""

import sys
import time


def _awake_and_asleep_s() -> float:
    """Seconds since boot with the time asleep."""
    name = "CLOCK_BOOTTIME" if sys.platform == "linux" else "CLOCK_MONOTONIC"
    return time.clock_gettime(getattr(time, name))


def _awake_s() -> float:
    """Seconds since boot without the time asleep."""
    name = "CLOCK_MONOTONIC" if sys.platform == "linux" else "CLOCK_UPTIME_RAW"
    return time.clock_gettime(getattr(time, name))


def since_boot_s() -> float:
    """How long the machine has slept since it was booted, in seconds."""
    return round(max(0.0, _awake_and_asleep_s() - _awake_s()), 1)


class SleepWatch:
    """How long the machine has slept since this was made."""

    def __init__(self) -> None:
        self._at_start = _awake_and_asleep_s() - _awake_s()

    def slept_s(self) -> float:
        return round(max(0.0, _awake_and_asleep_s() - _awake_s() - self._at_start), 1)
