"""Identify a process by PID and start time together, because the PID alone may belong to a later process."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from vestal.supervision.processes.start_time import has_ended, start_time

_CLOCK_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the latter counts sleep on macOS
_TOLERANCE_S = 0.011  # Linux counts in ticks of 10 ms, macOS in µs; JSON keeps floats exact


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, identified by its PID and start time.

    `start_time` is in seconds since the boot that `boot` names on Linux, and since 1970 elsewhere.
    """

    pid: int
    start_time: float
    boot: str = ""

    def alive(self) -> bool:
        """Return whether this very process still runs (a zombie does not).

        Return True if nothing can be read about the process now, such as when no descriptor is left.
        """
        if self.boot and self.boot != boot_id():
            return False
        now = start_time(self.pid)
        return not has_ended(self.pid) if now is None else abs(now - self.start_time) < _TOLERANCE_S


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a running process; None if there is none."""
    started = start_time(pid)
    return None if started is None else ProcessIdentity(pid, started, boot_id())


def age_s(identity: ProcessIdentity) -> float:
    """Return how long ago the process started, in seconds."""
    if sys.platform == "linux":
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_time)
    return max(0.0, time.time() - identity.start_time)


def is_of_this_boot(identity: ProcessIdentity) -> bool:
    """Return whether the process was started after the machine's last start.

    If `identity` has a boot ID, it is compared with the present one. Otherwise, the start time decides: on
    macOS, it is a Unix time, which is compared with the time of the machine's last start. On a Linux that
    hides its boot ID, start times are measured from the machine's last start, so that they cannot show an
    earlier boot; the result is then True for every process.
    """
    if identity.boot or (sys.platform == "linux" and not boot_id()):
        return identity.boot == boot_id()
    return identity.start_time >= time.time() - time.clock_gettime(_CLOCK_SINCE_BOOT)


def boot_id() -> str:
    """Return the identifier of this boot on Linux, where start times count from boot; empty elsewhere."""
    return _BOOT_ID


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


_BOOT_ID = _read_boot_id()  # read once, because later there may be no descriptor left to read it
