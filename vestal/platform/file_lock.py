"""Lock a file or folder so that only one process at a time does something, such as recovering this
installation or changing the model store.

The operating system releases the lock when the process that holds it dies. Linux emulates these locks on NFS,
and there locks only files that are open for writing, so no folders. Some file systems have no locks at all.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from vestal.best_effort.failures import FAILURES
from vestal.platform.exhaustion import is_exhausted, raise_if_exhausted

RETRY_S = 0.1
_NO_LOCK = -1


class LockHeld(Exception):
    """Another process holds the lock, and did not release it in time."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"a recovery in another process did not finish within {timeout_s:.0f} s")


def try_lock(path: Path, instead: Path | None = None) -> int | None:
    """Lock the file or folder `path`. Return a descriptor, which unlocks it when closed; None if another
    process has the lock.

    If `path` cannot be locked, the file `instead` is locked: give one if `path` is a folder, because folders
    on NFS have no locks. A missing file is created. Raises OSError if that fails, or if the file system has
    no locks.
    """
    try:
        return _try_lock(path)
    except OSError as error:
        if instead is None or is_exhausted(error):
            raise
        return _try_lock(instead)


def _try_lock(path: Path) -> int | None:
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
    except IsADirectoryError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise error from None  # it says why the file cannot be created, and not that it is missing


@contextlib.contextmanager
def wait_for_folder_lock(folder: Path, instead: Path) -> Iterator[bool]:
    """Hold the lock on `folder`, or on the file `instead` if the folder cannot be locked (NFS), during the
    `with` block, and yield True. Wait as long as another process holds the lock.

    If neither can be locked, yield False: the block runs without a lock. Raises OSError if the folder cannot
    be opened, or no descriptor or memory is left.
    """
    with contextlib.ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        is_locked = wait_for_lock(descriptor)
        if not is_locked:
            try:
                descriptor = _open(instead)
            except OSError as error:
                raise_if_exhausted(error)
            else:
                stack.callback(os.close, descriptor)
                is_locked = wait_for_lock(descriptor)
        yield is_locked


def wait_for_lock(descriptor: int, on_wait: Callable[[], None] = lambda: None) -> bool:
    """Lock the open file `descriptor`, which is unlocked when it is closed, and return True. If another
    process holds the lock, call `on_wait` and wait for it.

    Return False if the file cannot be locked, because its file system has no locks or because it is on NFS
    and not open for writing. Raises OSError if no memory is left for a lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    except OSError as error:
        raise_if_exhausted(error)
        return False
    on_wait()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise_if_exhausted(error)
        return False
    return True


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
    """Hold the lock on the file `path` during the `with` block. Raises LockHeld if another process still has
    the lock after `timeout_s` seconds. If the file cannot be created or locked, the block runs without the
    lock. This is `hold_lock` for the command line: it blocks the thread and needs no event loop.
    """
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
    """Try once to lock the file `path`. Return the descriptor that holds the lock; None if another process
    has the lock; _NO_LOCK if the file cannot be created or locked, which is also counted in `FAILURES`. A
    lack of descriptors or memory is not counted: it says nothing about the disk, and the lock may not be
    tried again for minutes, for which the failure would be reported.
    """
    try:
        descriptor = try_lock(path)
    except OSError as error:
        if not is_exhausted(error):
            FAILURES.failed("lock", error)
        return _NO_LOCK
    FAILURES.succeeded("lock")
    return descriptor


def _unlock(descriptor: int) -> None:
    if descriptor != _NO_LOCK:
        os.close(descriptor)
