"""Run the load: several clients, each of which sends its next request when the last one is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import aiohttp

from benchmarks.client.reading import Answer
from benchmarks.client.requests import ClientRequest
from benchmarks.client.returning import Sending, Watcher, ask_until_answered

READ_BUFFER_BYTES = 1 << 20


async def run(
    url: str,
    requests: Iterator[Sending],
    clients: int,
    timeout_s: float,
    watcher: Watcher,
    answered: Callable[[ClientRequest, Answer], None],
) -> None:
    """Send all `requests` to the gateway at `url`, from `clients` clients at the same time, and call
    `answered` with each request and its answer.

    A client that is cut off, refused or answered with 503 tries again, and `watcher` is informed of it. If a
    request has no complete answer after `timeout_s` seconds, it is not tried again, and the `fault` of its
    answer says so.
    """

    async def client(session: aiohttp.ClientSession) -> None:
        for sending in requests:
            answered(sending.ask, await ask_until_answered(session, url, sending, timeout_s, watcher))

    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
            read_bufsize=READ_BUFFER_BYTES,
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(clients):
            group.create_task(client(session))
