"""uvicorn's WebSocket connections, which also report to the table of connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from mlx_server.gateway.connections.reported_connection import ReportedConnection
from mlx_server.gateway.dialects.responses.websocket import REPORT_TURN
from vestal.web.connections import ConnectionTable, Phase


class WebSocketProtocol(ReportedConnection, WebSocketsSansIOProtocol):
    """One WebSocket connection. The application calls a function in the ASGI scope (REPORT_TURN) when an
    answer starts and when it ends, so that the table of connections knows the phase.
    """

    def __init__(self, table: ConnectionTable, **options: Any) -> None:
        super().__init__(table, **options)
        self._phase = Phase.OPEN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.report(self._phase)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.report(self._phase)

    async def run_asgi(self) -> None:
        self.scope[REPORT_TURN] = self._report_turn  # type: ignore[literal-required]
        await super().run_asgi()

    def _report_turn(self, is_running: bool) -> None:
        self._phase = Phase.ANSWERING if is_running else Phase.OPEN
        self.report(self._phase)
