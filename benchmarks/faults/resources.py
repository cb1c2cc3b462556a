"""Define the faults of resources that the processes use: a full disk, and no descriptor left."""

from __future__ import annotations

import contextlib
import resource
import time

from benchmarks.faults.fault import Fault, Made
from benchmarks.faults.outcomes import Entry
from benchmarks.faults.stack import FaultStack

HOLD_S = 6.0
"""How many seconds the fault lasts. It ends by itself, as if somebody deleted files or clients
disconnected.
"""
BLOCK_SIZES = (1 << 20, 1 << 12, 1)


def fill_disk(stack: FaultStack) -> Made:
    """Fill the disk of the stack's home to its last byte, keep it full for HOLD_S seconds, and free it again.
    Return the time at which it became full.
    """
    filler = stack.home / "filler"
    try:
        with filler.open("ab", buffering=0) as file:
            for size in BLOCK_SIZES:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        at = time.time()
        time.sleep(HOLD_S)
        return Made(at)
    finally:
        filler.unlink(missing_ok=True)


def take_descriptors(stack: FaultStack) -> Made:
    """Lower the gateway's limit of file descriptors to 0, so that it can open none, wait for HOLD_S seconds,
    and restore the limit. Return the time at which it was lowered.

    Descriptors that are already open stay open.
    """
    pid = stack.living_pid("mlx_server")
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, hard))
    try:
        at = time.time()
        time.sleep(HOLD_S)
        return Made(at)
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def _disk_is_named(entry: Entry) -> bool:
    return entry.event == "disk_not_writable"


def _descriptors_are_named(entry: Entry) -> bool:
    named = ("connections_not_accepted", "connections_dropped", "health_failed")
    return entry.component == "mlx_server" and entry.event in named


FAULTS = (
    Fault(
        "disk_full",
        fill_disk,
        _disk_is_named,
        stable=("mlx_server",),
    ),
    Fault(
        "descriptors_gone",
        take_descriptors,
        _descriptors_are_named,
        stable=("mlx_server",),
    ),
)
