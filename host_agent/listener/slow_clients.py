"""Closes connections on which no whole request arrives for too long: slow headers, idle keep-alive.

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
    """Knows when the last request of each connection ended. The server calls `begin` and `end`."""

    def __init__(self, idle_for_s: float = IDLE_FOR_S) -> None:
        self._idle_for_s = idle_for_s
        self._busy: set[object] = set()
        self._idle_since: dict[object, float] = {}

    def begin(self, connection: object) -> None:
        """Note that a whole request has arrived."""
        self._busy.add(connection)

    def end(self, connection: object, now: float) -> None:
        """Note that the request has been answered, at monotonic time `now`."""
        self._busy.discard(connection)
        self._idle_since[connection] = now

    def overdue(self, connected: Iterable[Connection], now: float) -> list[Connection]:
        """Return the connections that are idle for too long. Forget those that are not connected any more."""
        connections = list(connected)
        self._idle_since = {connection: self._idle_since.get(connection, now) for connection in connections}
        return [
            connection
            for connection in connections
            if connection not in self._busy and now - self._idle_since[connection] > self._idle_for_s
        ]

    async def sweep(self, connected: Callable[[], Iterable[Connection]]) -> None:
        """Close overdue connections every SWEEP_EACH_S, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EACH_S)
            for connection in self.overdue(connected(), time.monotonic()):
                connection.force_close()
