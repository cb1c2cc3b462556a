"""Lock a file so that only one process at a time recovers, starts or stops this installation.

The operating system releases the lock when the process that holds it dies.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

RETRY_S = 0.1


class LockHeld(Exception):
    """Another process holds the lock, and did not release it in time."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"a recovery in another process did not finish within {timeout_s:.0f} s")


def try_lock(path: Path) -> int | None:
    """Lock the file and return its descriptor, which unlocks it when closed; None if it is locked already."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.asynccontextmanager
async def hold_lock(path: Path, timeout_s: float) -> AsyncIterator[None]:
    """Hold the lock in the `async with` block. Raises LockHeld after waiting for it for `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise LockHeld(timeout_s)
        await asyncio.sleep(RETRY_S)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_lock_blocking(path: Path, timeout_s: float) -> Iterator[None]:
    """Do what `hold_lock` does, without an event loop: for the command line."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise LockHeld(timeout_s)
        time.sleep(RETRY_S)
    try:
        yield
    finally:
        os.close(descriptor)
