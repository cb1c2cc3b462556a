"""Measure how many cores other processes keep busy (Linux)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC_STAT = Path("/proc/stat")
_LEAST_WINDOW_S, _LONGEST_WINDOW_S = 0.05, 2.0


@dataclass(frozen=True)
class _Reading:
    at_s: float
    busy_s: float
    own_s: float


class OtherProcesses:
    """Measures how many cores other processes keep busy, by the difference between two readings of
    /proc/stat.
    """

    def __init__(self) -> None:
        self._last: _Reading | None = None
        self._busy_cores: float | None = None  # in the last window that was long enough

    def busy_cores(self, now: float) -> float | None:
        """Return how many cores other processes have kept busy since the last call; None if /proc/stat is
        unreadable.

        Without a call in the last 2 s, return how many threads of other processes run or wait for a core at
        this moment. A call within 0.05 s of the last reading returns the same number again. `now` is in
        monotonic seconds.
        """
        if self._last and self._busy_cores is not None and now - self._last.at_s < _LEAST_WINDOW_S:
            return self._busy_cores
        try:
            stat = _PROC_STAT.read_text("ascii")
            reading = _Reading(now, _busy_s(stat), time.process_time())
            others_running = _running_threads(stat) - 1
        except (OSError, ValueError, IndexError):
            return None
        last = self._last
        window_s = now - last.at_s if last else 0.0
        if last is None or window_s >= _LEAST_WINDOW_S:
            self._last = reading
        if last is None or not _LEAST_WINDOW_S <= window_s <= _LONGEST_WINDOW_S:
            self._busy_cores = None
            return float(max(others_running, 0))
        busy_s = reading.busy_s - last.busy_s - (reading.own_s - last.own_s)
        self._busy_cores = max(busy_s / window_s, 0.0)
        return self._busy_cores


def _busy_s(stat: str) -> float:
    """Return the busy seconds of all cores since the boot, added up. `stat` is the text of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.splitlines()[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _running_threads(stat: str) -> int:
    """Return how many threads of the machine run or wait for a core, from the text of /proc/stat."""
    (line,) = (line for line in stat.splitlines() if line.startswith("procs_running "))
    return int(line.split()[1])
