"""Read what the kernel shows of a server's process and port, to judge a server that does not answer."""

import asyncio
from functools import partial

from vestal.platform import tcp_queues
from vestal.platform.processes import process_usage
from vestal.supervision import ProcessActivity, ReadActivity


def reader(port: int | None = None) -> ReadActivity:
    """Return an async function that reads, in a thread, the activity of a process and the queues of its
    `port`.
    """

    async def read_in_thread(pid: int) -> ProcessActivity:
        return await asyncio.to_thread(partial(read, pid, port))

    return read_in_thread


def read(pid: int, port: int | None = None) -> ProcessActivity:
    """Return the activity of the process, and the queues of its port."""
    usage = process_usage.read(pid)
    queues = tcp_queues.read(port) if port is not None else None
    return ProcessActivity(
        cpu_s=usage.cpu_s,
        wakeups=usage.wakeups,
        suspended=usage.suspended,
        wants_cpu=usage.wants_cpu,
        waits_for_disk=usage.waits_for_disk,
        waiting_connections=queues.waiting if queues else None,
        unread_connections=queues.unread if queues else None,
        connections=queues.accepted if queues else None,
        open_files=usage.open_files,
        max_open_files=usage.max_open_files,
    )
