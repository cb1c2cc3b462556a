"""Kill an engine, by different methods. Each function returns at once, without waiting for the engine's
death.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import psutil

MIB = 1 << 20


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def stop(pid: int) -> None:
    """Suspend the process (SIGSTOP), so that it is alive but does nothing."""
    os.kill(pid, signal.SIGSTOP)


def abort(pid: int) -> None:
    """Send SIGABRT, by which a process dies when an assertion in Metal fails."""
    os.kill(pid, signal.SIGABRT)


def out_of_memory(pid: int) -> None:
    """Limit the process's address space, so that it fails at its next allocation. If no limit can be set from
    outside (macOS), send SIGKILL.
    """
    process = psutil.Process(pid)
    if hasattr(process, "rlimit"):
        with contextlib.suppress(psutil.Error):
            limit = process.memory_info().rss + MIB  # less than it has mapped, so any new mapping fails
            process.rlimit(psutil.RLIMIT_AS, (limit, limit))
            return
    os.kill(pid, signal.SIGKILL)


KILL_METHODS: dict[str, Callable[[int], None]] = {
    "KILL": kill,
    "TERM": terminate,
    "STOP": stop,
    "ABRT": abort,
    "OOM": out_of_memory,
}
