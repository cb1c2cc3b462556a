"""The ways an engine dies. Each returns at once; the death is the supervisor's to see."""

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
    """It hangs: alive, and silent."""
    os.kill(pid, signal.SIGSTOP)


def abort(pid: int) -> None:
    """What Metal's own assertions do."""
    os.kill(pid, signal.SIGABRT)


def out_of_memory(pid: int) -> None:
    """No further memory for it. Where no limit can be set from outside (macOS), what the kernel would do."""
    process = psutil.Process(pid)
    if hasattr(process, "rlimit"):
        with contextlib.suppress(psutil.Error):
            limit = process.memory_info().rss + MIB  # below its address space: any new mapping fails
            process.rlimit(psutil.RLIMIT_AS, (limit, limit))
            return
    os.kill(pid, signal.SIGKILL)


WAYS: dict[str, Callable[[int], None]] = {
    "KILL": kill,
    "TERM": terminate,
    "STOP": stop,
    "ABRT": abort,
    "OOM": out_of_memory,
}


def choose(count: int, draw: Callable[[], float]) -> list[str]:
    """Half of them KILL, the rest in turn; `draw` gives 0..1 and shuffles them."""
    others = [way for way in WAYS if way != "KILL"]
    ways = ["KILL" if n % 2 == 0 else others[n // 2 % len(others)] for n in range(count)]
    return sorted(ways, key=lambda _: draw())
