"""One healer at a time on this home: a lock on a file, which the system frees when its holder dies."""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

LOOK_AGAIN_S = 0.1


class LockHeld(Exception):
    """Another process is healing, and does not come to an end."""


def try_lock(path: Path) -> int | None:
    """The locked file's descriptor (close it to unlock), or None where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.asynccontextmanager
async def recovery_lock(path: Path, timeout_s: float) -> AsyncIterator[None]:
    """Hold the lock; LockHeld where another process keeps it longer."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise LockHeld(f"another process has been healing for {timeout_s:.0f} s")
        await asyncio.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def blocking_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """The same for the command line."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise LockHeld(f"another process has been healing for {timeout_s:.0f} s")
        time.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)
