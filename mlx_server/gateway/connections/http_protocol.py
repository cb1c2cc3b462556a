"""uvicorn's HTTP connections, with limits on their number and on the time that a client may be silent.

uvicorn limits how long a connection may be idle between two requests, but not how long headers or a body may
take. A subclass of uvicorn's h11 protocol therefore reports to the table of connections whenever data
arrives; h11's own state says what the connection waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Generator
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlx_server.gateway.connections.reported_connection import ReportedConnection
from mlx_server.gateway.dialects.error_envelopes import ollama_body
from vestal.web.acceptor import Acceptor
from vestal.web.connections import IDLE_FOR_S, ConnectionTable, Phase
from vestal.web.http_error import HttpError

CLOSE_WITHIN_S = 3
PONG_WITHIN_S = 300.0
"""How long a WebSocket's client may leave a ping unanswered. It is long because a client that runs a tool
between two turns may not read meanwhile."""
READ_AT_ONCE_BYTES = 64 * 1024
"""How many bytes are parsed at most in one turn of the event loop. h11 takes 50 ms to parse this many bytes
if they are HTTP chunks of one byte each."""


class HttpProtocol(ReportedConnection, H11Protocol):
    """One HTTP connection, which reports its phases (headers, body, answering, idle) to the ConnectionTable
    that its constructor gets as `table`.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.max_size = READ_AT_ONCE_BYTES  # type: ignore[attr-defined]  # asyncio's own is 256 KiB
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.report(self._phase(), len(data))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.report(self._phase())

    def _phase(self) -> Phase:
        if self.conn.their_state is h11.SEND_BODY:
            return Phase.BODY
        if self.cycle is not None and not self.cycle.response_complete:
            return Phase.ANSWERING
        begun, _ = self.conn.trailing_data
        return Phase.HEADERS if begun or self.cycle is None else Phase.IDLE

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Remove this connection from the table of open connections, and hand its transport to the WebSocket
        protocol, which adds the connection to the table again.
        """
        self.leave()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed HTTP, or a request without exactly one Host header, with an error in JSON. The
        path of such a request is unknown, so the error has Ollama's form. uvicorn's own method would answer
        in plain text.
        """
        error = HttpError(
            "invalid_request", "This is not an HTTP request, or it does not have exactly one Host header."
        )
        body = json.dumps(ollama_body(error)).encode()
        length = str(len(body)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", length),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class HttpServer(uvicorn.Server):
    """Serves one application on listening sockets. `table` holds the open connections, and limits their
    number.

    `report_dropped` is called with the number of connections that were closed to make room for others, and
    `report_stuck` with the error if no connection can be accepted for lack of descriptors or memory.
    `max_message_bytes` limits a WebSocket message.
    """

    def __init__(
        self,
        app: FastAPI,
        table: ConnectionTable,
        report_dropped: Callable[[int], None],
        report_stuck: Callable[[OSError], None],
        max_message_bytes: int,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            ws=self._make_websocket,  # type: ignore[arg-type]  # called as the class it stands for
            ws_max_size=max_message_bytes,
            ws_ping_timeout=PONG_WITHIN_S,
            ws_per_message_deflate=False,
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # anybody could claim another address
            timeout_keep_alive=int(IDLE_FOR_S),
            timeout_graceful_shutdown=CLOSE_WITHIN_S,
        )
        super().__init__(config)
        self._table = table
        self._report_dropped, self._report_stuck = report_dropped, report_stuck
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections with an `Acceptor`, which limits their number, for each socket. uvicorn itself
        gets no socket.
        """
        await super().startup(sockets=[])
        for listening in sockets or ():
            acceptor = Acceptor(
                listening, self._make_protocol, self._table, self._report_dropped, self._report_stuck
            )
            acceptor.start()
            self._acceptors.append(acceptor)

    def _make_protocol(self) -> HttpProtocol:
        return HttpProtocol(
            self._table,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def _make_websocket(self, **options: Any) -> asyncio.Protocol:
        """Return the protocol of a WebSocket connection. The library behind it is imported at the first
        call.
        """
        from mlx_server.gateway.connections.websocket_protocol import WebSocketProtocol

        return WebSocketProtocol(self._table, **options)

    def stop_accepting(self) -> None:
        """Close the listening sockets in this process."""
        for acceptor in self._acceptors:
            acceptor.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
            await acceptor.wait_closed()
        await super().shutdown(sockets=[])

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no signal handlers, unlike uvicorn's own method. The gateway's program handles the
        signals, because it drains before it stops the servers.
        """
        yield
