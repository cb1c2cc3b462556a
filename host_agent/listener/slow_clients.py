"""Closes connections that hold no whole request for too long: slow headers, idle keep-alive.

aiohttp has a limit for idle connections, but none for a request whose headers never end.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

IDLE_FOR_S = 20.0
SWEEP_EACH_S = 5.0


class Connection(Protocol):
    def force_close(self) -> None: ...


class SlowClients:
    """Told of each request's begin and end; asks the server what is connected."""

    def __init__(self, idle_for_s: float = IDLE_FOR_S) -> None:
        self._idle_for_s = idle_for_s
        self._busy: set[object] = set()
        self._since: dict[object, float] = {}

    def begin(self, connection: object) -> None:
        self._busy.add(connection)

    def end(self, connection: object, now: float) -> None:
        self._busy.discard(connection)
        self._since[connection] = now

    def overdue(self, connected: Iterable[Connection], now: float) -> list[Connection]:
        """Those that have made no whole request for too long. Forgets those that are gone."""
        connections = list(connected)
        self._since = {connection: self._since.get(connection, now) for connection in connections}
        return [
            connection
            for connection in connections
            if connection not in self._busy and now - self._since[connection] > self._idle_for_s
        ]

    async def sweep(self, connected: Callable[[], Iterable[Connection]]) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(SWEEP_EACH_S)
            for connection in self.overdue(connected(), time.monotonic()):
                connection.force_close()
