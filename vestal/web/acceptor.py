"""Accept connections as long as there is room, and make room by closing those idle for longest.

asyncio's own server accepts whatever comes until the process has no descriptor left. Then it accepts nothing,
and the silent connections stay: 300 of them made a service at macOS' default limit unreachable.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable

from vestal.web.connections import ConnectionTable

BACKLOG = 2048
ACCEPTED_AT_ONCE = 32
"""How many connections are accepted at once: few, so that requests that have arrived are read before the
connections behind them are accepted.
"""
DROPPED_AT_ONCE = 4
RETRY_S = 0.01
SWEEP_EACH_S = 1.0
SAME_LACK_S = 5.0
"""A failure to accept that follows another within this time has the same cause, and is not reported again."""


def bind(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError if the address and port cannot be bound."""
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
    """Accepts the connections of one listening socket, up to the limit of the connection table `table`.

    Several acceptors may share a table. `make_protocol` creates the asyncio protocol that serves a connection
    and reports what happens on it to the table. `report_dropped` is called with the number of connections
    that were closed to make room; `report_stuck` is called with the error if no connection can be accepted
    for lack of descriptors or memory, once for each shortage.
    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        table: ConnectionTable,
        report_dropped: Callable[[int], None] = lambda count: None,
        report_stuck: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self._table = table
        self._report_dropped = report_dropped
        self._report_stuck = report_stuck
        self._failed_at = float("-inf")
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_open = False

    def start(self) -> None:
        """Begin to accept connections."""
        self._is_open = True
        self._resume()

    def close(self) -> None:
        """Accept no further connection. Those that are open stay."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listening)
            for timer in self._timers.values():
                timer.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Wait, after `close`, until every accepted connection has its asyncio protocol or has been lost.

        This does not wait for the end of these connections.
        """
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
            except OSError as error:  # no descriptor or no memory is left
                failed_before, self._failed_at = self._failed_at, self._loop.time()
                if self._failed_at - failed_before >= SAME_LACK_S:
                    self._report_stuck(error)
                return self._begin_to_make_room()
            self._table.accepted += 1
            self._sweep_later()
            task = self._loop.create_task(self._connect(connected))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None

    def _begin_to_make_room(self) -> None:
        """Stop accepting connections, because there is no room for another one. Schedule `_make_room`, which
        closes idle ones and then accepts again.

        `_make_room` runs in the event loop's next turn, after the requests that have arrived are read, so
        that a connection with a request is not taken for idle. Until it accepts again, new connections wait
        in the kernel's queue.
        """
        self._loop.remove_reader(self._listening)
        self._timers["room"] = self._loop.call_later(0, self._make_room)

    def _make_room(self) -> None:
        """Close up to DROPPED_AT_ONCE connections that are idle for longest, and then accept again.

        If none may be closed, accept again after RETRY_S.
        """
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

    def _sweep_later(self) -> None:
        """Close overdue connections at the next whole second, when the other timers of this process fire too.

        Without a connection, no timer wakes the process.
        """
        if "sweep" not in self._timers:
            at = (math.floor(self._loop.time() / SWEEP_EACH_S) + 1) * SWEEP_EACH_S
            self._timers["sweep"] = self._loop.call_at(at, self._sweep)

    def _sweep(self) -> None:
        del self._timers["sweep"]
        for connection in self._table.overdue(self._loop.time()):
            connection.transport.abort()
        if dropped := self._table.take_dropped():
            self._report_dropped(dropped)
        if self._table.accepted or len(self._table):
            self._sweep_later()
