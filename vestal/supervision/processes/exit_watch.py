"""Notice the end of a process at once, by the kernel's own means: a pidfd on Linux, a kqueue on macOS and
BSD.

Both work for children and for other processes. Where the kernel has neither (Linux before 5.3, some
sandboxes), the process is looked up 50 times a second. If no file descriptor is free for a pidfd or kqueue,
opening one is tried again 50 times a second instead. Nothing here reaps a process.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys

from vestal.best_effort.files import EXHAUSTED
from vestal.supervision.processes.start_time import has_ended

POLL_S = 0.02


async def wait_for_exit(pid: int) -> None:
    """Wait until the process has ended: it is a zombie, or gone."""
    while True:
        try:
            return await _wait_for_event(pid)
        except ProcessLookupError:
            return
        except OSError as error:
            if error.errno not in EXHAUSTED:
                return await _poll_for_exit(pid)
        await asyncio.sleep(POLL_S)


async def _wait_for_event(pid: int) -> None:
    """Wait until the process has ended, by the kernel's means. Raises ProcessLookupError if it is gone, and
    another OSError if the kernel has no such means, or no descriptor is left.
    """
    if sys.platform == "linux":
        fd = os.pidfd_open(pid)
        try:
            await _wait_until_readable(fd)
        finally:
            os.close(fd)
    elif hasattr(select, "kqueue"):
        await _kqueue_exit(pid)
    else:
        await _poll_for_exit(pid)


async def _wait_until_readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await readable
    finally:
        loop.remove_reader(fd)


async def _poll_for_exit(pid: int) -> None:
    while not has_ended(pid):  # noqa: ASYNC110 - no event announces the end of this process
        await asyncio.sleep(POLL_S)


if sys.platform != "linux":  # pragma: no cover - not on the machines that measure coverage

    async def _kqueue_exit(pid: int) -> None:
        queue = select.kqueue()
        try:
            watch = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
            )
            queue.control([watch], 0)  # ProcessLookupError: it has ended, and may not be reaped yet
            await _wait_until_readable(queue.fileno())  # a kqueue is readable once it has an event
        finally:
            queue.close()

else:

    async def _kqueue_exit(pid: int) -> None:
        raise NotImplementedError
