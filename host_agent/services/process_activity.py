"""Read what the kernel shows of a server's process and port, to judge a server that does not answer."""

import asyncio
from functools import partial

from vestal.platform import tcp_queues
from vestal.platform.processes import process_usage
from vestal.supervision import ProcessActivity, ReadActivity


def reader(port: int | None = None) -> ReadActivity:
    """Return an async function that takes a server's PID and returns, read in a thread, the activity of the
    process: its CPU time, state and open files and, if `port` is set, the connections at that port.
    """

    async def read_in_thread(pid: int) -> ProcessActivity:
        return await asyncio.to_thread(partial(read, pid, port))

    return read_in_thread


def read(pid: int, port: int | None = None) -> ProcessActivity:
    """Return what the kernel shows of the process: its CPU time, wakeups, state and open files and, if `port`
    is set, how many connections that port has accepted, and how many wait. A value that cannot be read is
    None.
    """
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
