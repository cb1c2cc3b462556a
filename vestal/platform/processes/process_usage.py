"""Read what the kernel shows of a process: whether it works, waits, or is suspended."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessUsage:
    """What the kernel shows of a process at one moment. A field is None if this system does not disclose it.

    `cpu_s` is the CPU time in seconds since the process started. `wakeups` counts how often the process has
    waited for something and continued: its main thread on Linux, all its threads on macOS. `wants_cpu` says
    whether it runs or waits for a CPU, and `suspended` whether a signal such as SIGSTOP has stopped it.
    """

    cpu_s: float | None = None
    wakeups: int | None = None
    suspended: bool | None = None
    wants_cpu: bool | None = None
    waits_for_disk: bool | None = None
    open_files: int | None = None
    max_open_files: int | None = None


def read(pid: int) -> ProcessUsage:
    """Return the usage of the process now; all fields are None if the process does not exist."""
    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return ProcessUsage()
    with process.oneshot():
        times = _read(process.cpu_times)
        switches = _read(process.num_ctx_switches)
        status = _read(process.status)
        return ProcessUsage(
            cpu_s=None if times is None else float(times.user + times.system),
            wakeups=None if switches is None else int(switches.voluntary),
            suspended=None
            if status is None
            else status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP),
            # macOS calls every process that is not suspended running.
            wants_cpu=status == psutil.STATUS_RUNNING if status and sys.platform == "linux" else None,
            waits_for_disk=status == psutil.STATUS_DISK_SLEEP if status and sys.platform == "linux" else None,
            open_files=_read(process.num_fds),
            max_open_files=_read(lambda: _max_open_files(process)),
        )


def _max_open_files(process: psutil.Process) -> int | None:
    """Return the limit of open files of the process; None if it is unknown. Only Linux discloses the limit of
    another process.
    """
    if not hasattr(process, "rlimit"):
        return None
    soft, _ = process.rlimit(psutil.RLIMIT_NOFILE)
    return int(soft) if soft != psutil.RLIM_INFINITY else None


def _read(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (psutil.Error, OSError):
        return None
