"""Decide which connections are closed: those that are silent for too long, and the one idle for longest when
there is no room for another. Pure: time is an argument.

A connection is never closed for a new one while its request is being answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

HEADERS_WITHIN_S = 20.0
IDLE_FOR_S = 120.0
"""How long a connection rests between two requests. Clients keep theirs in a pool, and an agent that runs a
tool between two turns lets it rest for a minute."""
BODY_WINDOW_S = 20.0
BODY_MIN_BYTES = 64 * 1024
"""The bytes of a body, or the rest of it, that must arrive in each BODY_WINDOW_S: 3 KiB/s. A large body over
a slow network takes as long as it needs; one that trickles does not hold its connection.
"""
UNREAD_FOR_S = 300.0
"""How long a client may leave unread what is sent to it."""
CLOSED_WITHIN_S = 5.0
NEW_FOR_S = 0.02


class Transport(Protocol):
    """A connection's asyncio transport: `close` sends what is buffered first, `abort` drops it."""

    def close(self) -> None: ...
    def abort(self) -> None: ...


class Phase(Enum):
    HEADERS = "the headers of a request are awaited, or arrive"
    BODY = "the body of a request arrives"
    ANSWERING = "a whole request has arrived and is being answered"
    IDLE = "the last request is answered"
    OPEN = "a WebSocket waits for a message: it may do so for as long as its client likes"


class BodyProgress:
    """The deadline for the next part of a request body, in monotonic seconds. It moves as bytes arrive."""

    def __init__(self, now: float) -> None:
        self.deadline = now + BODY_WINDOW_S
        self._since_deadline_bytes = 0

    def received(self, count_bytes: int, now: float) -> None:
        """Count bytes of the body that have arrived. If BODY_MIN_BYTES have arrived since the deadline was
        last set, set it to BODY_WINDOW_S seconds after `now`.
        """
        self._since_deadline_bytes += count_bytes
        if self._since_deadline_bytes >= BODY_MIN_BYTES:
            self._since_deadline_bytes = 0
            self.deadline = now + BODY_WINDOW_S


@dataclass(eq=False, slots=True)
class Connection:
    """One open connection. All times are in monotonic seconds.

    `since`          when its present phase began
    `active_at`      when bytes last arrived, a request was answered, or the client began or stopped reading
    `body`           the deadline for the next part of the body in the phase BODY; None in the other phases
    `unread_since`   when the client stopped reading what is sent to it; None if it reads
    `closing_since`  when the server began to close the connection; None if it has not
    """

    transport: Transport
    since: float
    active_at: float
    phase: Phase = Phase.HEADERS
    body: BodyProgress | None = None
    unread_since: float | None = None
    closing_since: float | None = None


@dataclass
class ConnectionTable:
    """All open connections of one service, of which there may be `max_open`.

    The protocol of each connection reports what happens to it. `overdue` returns the connections that were
    silent for too long, and `to_drop` returns the one idle for longest, to make room for a new one; the
    caller closes them. `accepted` counts the connections that were accepted and have no protocol yet.
    `dropped` counts the connections that `to_drop` has returned since the last `take_dropped`.
    """

    max_open: int
    accepted: int = 0
    dropped: int = 0
    _open: set[Connection] = field(default_factory=set)
    _closing: set[Connection] = field(default_factory=set)
    _silent: OrderedDict[Connection, None] = field(default_factory=OrderedDict)  # idle for longest first

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """Return whether the table has its maximum of connections. Those that are being closed do
        not count.
        """
        return len(self._open) + self.accepted - len(self._closing) >= self.max_open

    @property
    def unserved(self) -> int:
        """Return how many connections still send a request or wait for its answer."""
        resting = (Phase.IDLE, Phase.OPEN)
        return self.accepted + sum(connection.phase not in resting for connection in self._open)

    def take_dropped(self) -> int:
        """Return how many connections were closed for new ones since the last call."""
        count, self.dropped = self.dropped, 0
        return count

    def opened(self, transport: Transport, now: float) -> Connection:
        """Add a connection that was opened at `now` (monotonic seconds), and return it. It is overdue if the
        headers of its first request have not arrived within HEADERS_WITHIN_S.
        """
        connection = Connection(transport, since=now, active_at=now)
        self._open.add(connection)
        self._silent[connection] = None
        return connection

    def closed(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._closing.discard(connection)
        self._silent.pop(connection, None)

    def report(self, connection: Connection, phase: Phase, now: float, received_bytes: int = 0) -> None:
        """Set the connection's phase, after bytes have arrived or a request was answered. `received_bytes` is
        how many bytes have just arrived.
        """
        connection.active_at = now
        if phase is not connection.phase:
            connection.phase, connection.since = phase, now
            connection.body = BodyProgress(now) if phase is Phase.BODY else None
        elif connection.body:
            connection.body.received(received_bytes, now)
        self._order(connection)

    def report_unread(self, connection: Connection, is_unread: bool, now: float) -> None:
        """Record that the client has stopped reading what is sent to it (`is_unread`), or that it reads
        again.
        """
        connection.unread_since = now if is_unread else None
        connection.active_at = now
        self._order(connection)

    def _order(self, connection: Connection) -> None:
        """Move the connection to the end of `_silent`, the list of connections that may be closed for lack of
        room. The first one in the list is closed first.

        If the connection is being answered or closed, or its client does not read, remove it from the list
        instead.
        """
        is_busy = connection.phase is Phase.ANSWERING or connection.unread_since is not None
        if is_busy or connection.closing_since is not None:
            self._silent.pop(connection, None)
        elif connection in self._open:
            self._silent[connection] = None
            self._silent.move_to_end(connection)

    def to_drop(self, now: float) -> Connection | None:
        """Return the connection idle for longest, to be closed for a new one.

        Return None if all are being answered, or are so new that their requests may still be on the way.
        """
        connection = next(iter(self._silent), None)
        if connection is None or now - connection.active_at < NEW_FOR_S:
            return None
        self.dropped += 1
        self._begin_closing(connection, now)
        return connection

    def idle_since(self, before: float) -> list[Connection]:
        """Return the idle connections whose last request was answered before the monotonic time `before`."""
        return [
            connection
            for connection in self._silent
            if connection.phase is Phase.IDLE and connection.since < before
        ]

    def overdue(self, now: float) -> list[Connection]:
        """Return the connections that were silent for too long. The caller has to abort them."""
        found = list(self._overdue(now))
        for connection in found:
            self._begin_closing(connection, now)
        return found

    def _begin_closing(self, connection: Connection, now: float) -> None:
        if connection.closing_since is None:
            connection.closing_since = now
        self._closing.add(connection)
        self._silent.pop(connection, None)

    def _overdue(self, now: float) -> Iterator[Connection]:
        for connection in self._open:
            if connection.closing_since is not None:
                is_late = now - connection.closing_since > CLOSED_WITHIN_S
            elif connection.unread_since is not None:
                is_late = now - connection.unread_since > UNREAD_FOR_S
            elif connection.body is not None:
                # The handler that reads the body answers first, with a 408.
                is_late = now - connection.body.deadline > CLOSED_WITHIN_S
            else:
                limits_s = {Phase.HEADERS: HEADERS_WITHIN_S, Phase.IDLE: IDLE_FOR_S}
                is_late = now - connection.since > limits_s.get(connection.phase, float("inf"))
            if is_late:
                yield connection
