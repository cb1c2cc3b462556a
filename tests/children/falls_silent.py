"""Serve GET /health on an event loop, until a request makes the program fall silent.

Arguments: PORT, and the most file descriptors that the program may have open (0: the system's limit).
GET /spin computes without end, GET /deadlock waits for a lock that nobody releases, both on the event loop.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import threading

TICK_S = 0.5


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=512)
    async with server:
        while True:  # noqa: ASYNC110 - a real server has timers, too
            await asyncio.sleep(TICK_S)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readline()
    if b"/spin" in line:
        while True:
            pass
    if b"/deadlock" in line:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    if int(sys.argv[2]):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
    asyncio.run(serve(int(sys.argv[1])))
