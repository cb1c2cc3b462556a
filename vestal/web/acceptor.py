"""Accept connections as long as there is room, and make room by closing those idle for longest.

asyncio's own server accepts whatever comes until the process has no descriptor left. Then it accepts nothing,
and the silent connections stay: 300 of them made a service at macOS' default limit unreachable.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from vestal.web.connections import ConnectionTable

BACKLOG = 2048
ACCEPTED_AT_ONCE = 32
"""Few, so that requests that have arrived are read before the connections behind them are accepted."""
DROPPED_AT_ONCE = 4
RETRY_S = 0.01
SWEEP_EACH_S = 1.0


def bind(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # The protocol is named, since asyncio sets TCP_NODELAY only then.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


class Acceptor:
    """Serves the connections of one listening socket. Several may share a table.

    `make_protocol` makes the protocol of a connection, which reports to the table. `report_dropped` is called
    with the number of connections that were closed to make room.
    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        table: ConnectionTable,
        report_dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self._table = table
        self._report_dropped = report_dropped
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_open = False

    def start(self) -> None:
        """Begin to accept connections."""
        self._is_open = True
        self._resume()
        self._sweep()

    def close(self) -> None:
        """Accept no further connection. Those that are open stay."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listening)
            for timer in self._timers.values():
                timer.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Return when the connections that were just accepted have their protocols."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _resume(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Accept waiting connections. The event loop calls this when there are any, and again if
        some remain.
        """
        if self._table.is_full:
            return self._begin_to_make_room()
        for _ in range(ACCEPTED_AT_ONCE):
            if self._table.is_full:
                return None
            try:
                connected, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError:  # no descriptor or no memory is left
                return self._begin_to_make_room()
            self._table.accepted += 1
            task = self._loop.create_task(self._connect(connected))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None

    def _begin_to_make_room(self) -> None:
        """Leave new connections in the kernel's queue while the requests that have arrived are read."""
        self._loop.remove_reader(self._listening)
        self._timers["room"] = self._loop.call_later(0, self._make_room)

    def _make_room(self) -> None:
        """Close some silent connections, and accept again."""
        dropped = [self._table.to_drop(self._loop.time()) for _ in range(DROPPED_AT_ONCE)]
        for connection in dropped:
            if connection is not None:
                connection.transport.close()
        delay_s = 0 if dropped[0] else RETRY_S
        self._timers["room"] = self._loop.call_later(delay_s, self._resume)

    async def _connect(self, connected: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connected)
        except OSError:  # the client has hung up
            connected.close()
        finally:
            self._table.accepted -= 1

    def _sweep(self) -> None:
        for connection in self._table.overdue(self._loop.time()):
            connection.transport.abort()
        if dropped := self._table.take_dropped():
            self._report_dropped(dropped)
        self._timers["sweep"] = self._loop.call_later(SWEEP_EACH_S, self._sweep)
