"""The common part of the gateway's HTTP and WebSocket connections: reports to the table of connections."""

from __future__ import annotations

import asyncio
from typing import Any

from vestal.web.connections import Connection, ConnectionTable, Phase


class ReportedConnection(asyncio.Protocol):
    """A mixin for uvicorn's protocols. It reports to the table when the connection opens and closes, and when
    its client stops or resumes reading.
    """

    def __init__(self, table: ConnectionTable, **options: Any) -> None:
        super().__init__(**options)
        self._table = table
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection = self._table.opened(transport, _now())
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._connection is not None:
            self._table.report_unread(self._connection, True, _now())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._connection is not None:
            self._table.report_unread(self._connection, False, _now())

    def report(self, phase: Phase, received_bytes: int = 0) -> None:
        """Report the phase of the connection, and how many bytes have just arrived."""
        if self._connection is not None:
            self._table.report(self._connection, phase, _now(), received_bytes)

    def leave(self) -> None:
        """Remove the connection from the table, because it is closed or another protocol has taken it
        over.
        """
        if self._connection is not None:
            self._table.closed(self._connection)
            self._connection = None


def _now() -> float:
    return asyncio.get_running_loop().time()
