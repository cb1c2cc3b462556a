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

from vestal.best_effort.failures import FAILURES

RETRY_S = 0.1
_NO_LOCK = -1


class LockHeld(Exception):
    """Another process holds the lock, and did not release it in time."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"a recovery in another process did not finish within {timeout_s:.0f} s")


def try_lock(path: Path) -> int | None:
    """Lock the file or folder. Return a descriptor, which unlocks it when closed; None if another process has
    the lock.

    A missing file is created. Raises OSError if that fails, or if the file system has no locks.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> int:
    """Open a folder or a file, and return its descriptor. A missing file is created; what cannot be written,
    as on a read-only disk, is opened for reading. Raises OSError if both fail.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.asynccontextmanager
async def hold_lock(path: Path, timeout_s: float) -> AsyncIterator[None]:
    """Hold the lock on the file `path` during the `async with` block. Raises LockHeld if another process
    still has the lock after `timeout_s` seconds.

    If the file cannot be created, as on a full disk, or its file system has no locks, the block runs without
    the lock. The lock guards the recovery, start and stop of services and of the host agent. It does less
    harm if two processes do these at the same time than if no process can do them at all.
    """
    deadline = time.monotonic() + timeout_s
    while (descriptor := _try_lock_or_go_on(path)) is None:
        if time.monotonic() > deadline:
            raise LockHeld(timeout_s)
        await asyncio.sleep(RETRY_S)
    try:
        yield
    finally:
        _unlock(descriptor)


@contextlib.contextmanager
def hold_lock_blocking(path: Path, timeout_s: float) -> Iterator[None]:
    """Do what `hold_lock` does, without an event loop: for the command line."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := _try_lock_or_go_on(path)) is None:
        if time.monotonic() > deadline:
            raise LockHeld(timeout_s)
        time.sleep(RETRY_S)
    try:
        yield
    finally:
        _unlock(descriptor)


def _try_lock_or_go_on(path: Path) -> int | None:
    """Return the lock's descriptor; None if another process holds it; _NO_LOCK if it cannot be created."""
    try:
        descriptor = try_lock(path)
    except OSError as error:
        FAILURES.failed("lock", error)
        return _NO_LOCK
    FAILURES.succeeded("lock")
    return descriptor


def _unlock(descriptor: int) -> None:
    if descriptor != _NO_LOCK:
        os.close(descriptor)
