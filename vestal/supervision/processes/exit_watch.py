"""Learning of a process's end from the kernel at once: pidfd on Linux, kqueue on macOS and BSD.

Both work for children and for processes that are not ours. Where the kernel has neither (Linux before 5.3,
some sandboxes) it is looked for 50 times a second. Nothing here reaps.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys

from vestal.supervision.processes.identity import start_time

POLL_S = 0.02


async def ended(pid: int) -> None:
    """Returns once the process has ended: it is a zombie, or gone."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:
            await _polled(pid)
            return
        try:
            await _readable(fd)
        finally:
            os.close(fd)
    elif hasattr(select, "kqueue"):
        await _kqueue_ended(pid)
    else:
        await _polled(pid)


async def _readable(fd: int) -> None:
    """Returns once the file descriptor has news."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await woken
    finally:
        loop.remove_reader(fd)


async def _polled(pid: int) -> None:
    while start_time(pid) is not None:  # noqa: ASYNC110 - nobody could set an event
        await asyncio.sleep(POLL_S)


if sys.platform != "linux":  # pragma: no cover - not on the machines that measure coverage

    async def _kqueue_ended(pid: int) -> None:
        queue = select.kqueue()
        try:
            watch = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
            )
            queue.control([watch], 0)
        except ProcessLookupError:  # ended, maybe not yet reaped
            queue.close()
            return
        try:
            await _readable(queue.fileno())  # a kqueue is itself readable once it has news
        finally:
            queue.close()

else:

    async def _kqueue_ended(pid: int) -> None:
        raise NotImplementedError
