"""Methods of killing an engine. Each returns at once, without waiting for the engine's death."""

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
    """Suspend the process, so that it is alive but does nothing."""
    os.kill(pid, signal.SIGSTOP)


def abort(pid: int) -> None:
    """Send SIGABRT, of which a process dies when an assertion in Metal fails."""
    os.kill(pid, signal.SIGABRT)


def out_of_memory(pid: int) -> None:
    """Forbid the process any new memory. If no limit can be set from outside (macOS), send SIGKILL."""
    process = psutil.Process(pid)
    if hasattr(process, "rlimit"):
        with contextlib.suppress(psutil.Error):
            limit = process.memory_info().rss + MIB  # below its address space: any new mapping fails
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
