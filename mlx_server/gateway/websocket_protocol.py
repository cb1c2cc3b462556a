"""The gateway's WebSockets: uvicorn's, which report to the table of connections what happens to them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from mlx_server.gateway.dialects.responses.websocket import REPORT_TURN
from vestal.web.connections import Connection, ConnectionTable, Phase


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. The application reports each turn by the function that stands in the scope."""

    def __init__(self, table: ConnectionTable, **options: Any) -> None:
        super().__init__(**options)
        self._table = table
        self._connection: Connection | None = None
        self._phase = Phase.OPEN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection = self._table.opened(transport, self.loop.time())
        super().connection_made(transport)
        self._report()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._table.closed(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._report()

    async def run_asgi(self) -> None:
        self.scope[REPORT_TURN] = self._report_turn  # type: ignore[literal-required]
        await super().run_asgi()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._connection is not None:
            self._table.report_unread(self._connection, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._connection is not None:
            self._table.report_unread(self._connection, None)

    def _report_turn(self, is_running: bool) -> None:
        self._phase = Phase.ANSWERING if is_running else Phase.OPEN
        self._report()

    def _report(self) -> None:
        if self._connection is not None:
            self._table.report(self._connection, self._phase, self.loop.time())
