"""Run the load: several clients at once, each sending its next request when the last one is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import aiohttp

from benchmarks.chaos.answers import Answer, send
from benchmarks.chaos.asks import ChaosRequest


async def run(
    url: str,
    asks: Sequence[ChaosRequest],
    clients: int,
    timeout_s: float,
    go_on: Callable[[], bool] = lambda: False,
) -> list[tuple[ChaosRequest, Answer]]:
    """Send every request once, and repeat them while `go_on`. Return the answers as they ended."""
    answers: list[tuple[ChaosRequest, Answer]] = []
    line = _line(asks, go_on)

    async def client(session: aiohttp.ClientSession) -> None:
        for ask in line:
            answers.append((ask, await send(session, url, ask, timeout_s)))

    no_limit = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=no_limit, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return answers


def _line(asks: Sequence[ChaosRequest], go_on: Callable[[], bool]) -> Iterator[ChaosRequest]:
    yield from asks
    while go_on():
        for ask in asks:
            if not go_on():
                return
            yield ask
