"""Run an aiohttp application with limits on its connections, and answer malformed HTTP by an error in JSON.

aiohttp itself has no limit for a request whose headers never end. It answers malformed HTTP before any
middleware sees it: in plain text, and with a traceback in the log.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy

from vestal.web.acceptor import Acceptor, bind
from vestal.web.aiohttp_adapter import code_of, error_response
from vestal.web.connections import IDLE_FOR_S, Connection, ConnectionTable, Phase
from vestal.web.descriptors import max_connections
from vestal.web.http_error import HttpError

log = logging.getLogger("vestal")
T = TypeVar("T")
CONTINUE = "100-continue"


class JsonAppRunner(web.AppRunner):
    """Runs `app` with limits on its connections, and answers malformed HTTP in JSON.

    `report_dropped` is called with the number of connections that were closed to make room for others,
    `report_stuck` with the error if no connection can be accepted.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        report_dropped: Callable[[int], None] = lambda count: None,
        report_stuck: Callable[[OSError], None] = lambda error: None,
        **options: Any,
    ) -> None:
        super().__init__(app, keepalive_timeout=IDLE_FOR_S, **options)
        self.connections = ConnectionTable(max_connections())
        self._report_dropped, self._report_stuck = report_dropped, report_stuck

    async def listen(self, address: str, port: int, inherited: socket.socket | None = None) -> web.BaseSite:
        """Listen on one more address, with the `inherited` socket if there is one.

        Return aiohttp's site for the address. Raises OSError if the address cannot be bound.
        """
        listening = inherited or bind("127.0.0.1" if address == "localhost" else address, port)
        site = _Site(self, listening, self._report_dropped, self._report_stuck)
        await site.start()
        return site

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            protocol = request.protocol
            assert isinstance(protocol, _Protocol)
            protocol.begin(request)
            try:
                return await server.request_handler(request)
            finally:
                protocol.end()

        def make_request(message: RawRequestMessage, *parts: Any) -> web.BaseRequest:
            return server.request_factory(_without_unknown_expectation(message), *parts)

        return _Server(self.connections, handle, request_factory=make_request, **self._kwargs)


def _without_unknown_expectation(message: RawRequestMessage) -> RawRequestMessage:
    """Return the message without an `Expect` header that is not `100-continue`.

    aiohttp refuses such a header (417) in plain text before any middleware, even at an unknown address or
    without a token. A server may ignore it (RFC 9110, section 10.1.1).
    """
    if message.headers.get("Expect", CONTINUE).lower() == CONTINUE:
        return message
    headers = CIMultiDict(message.headers)
    del headers["Expect"]
    return message._replace(headers=CIMultiDictProxy(headers))


class _Site(web.BaseSite):
    __slots__ = ("_acceptor", "_listening")

    def __init__(
        self,
        runner: JsonAppRunner,
        listening: socket.socket,
        report_dropped: Callable[[int], None],
        report_stuck: Callable[[OSError], None],
    ) -> None:
        super().__init__(runner)
        assert runner.server is not None
        self._listening = listening
        self._acceptor = Acceptor(listening, runner.server, runner.connections, report_dropped, report_stuck)

    @property
    def name(self) -> str:
        address, port, *_ = self._listening.getsockname()
        return f"http://{address}:{port}"

    async def start(self) -> None:
        await super().start()
        self._acceptor.start()

    async def stop(self) -> None:
        self._acceptor.close()
        await super().stop()


class _Server(web.Server):
    def __init__(self, connections: ConnectionTable, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self.open = connections

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
    """aiohttp's protocol of one connection. It reports the connection's phase (see `connections.Phase`) to
    the table of connections, which decides which connections are closed.
    """

    __slots__ = ("_connection", "_request", "_table", "lost")

    def __init__(self, server: _Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(server, loop=loop, **options)
        self._table = server.open
        self._connection: Connection | None = None
        self._request: web.BaseRequest | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection = self._table.opened(transport, self._loop.time())
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set()
        if self._connection is not None:
            self._table.closed(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._report(Phase.HEADERS, len(data))

    def begin(self, request: web.BaseRequest) -> None:
        """Record that the headers of `request` have arrived."""
        self._request = request
        self._report(Phase.ANSWERING)

    def end(self) -> None:
        """Record that the request is answered."""
        self._request = None
        self._report(Phase.IDLE)

    def _report(self, phase: Phase, received_bytes: int = 0) -> None:
        if self._connection is None:
            return
        if self._request is not None:
            phase = Phase.ANSWERING if self._request.content.is_eof() else Phase.BODY
        self._table.report(self._connection, phase, self._loop.time(), received_bytes)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._connection is not None:
            self._table.report_unread(self._connection, True, self._loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._connection is not None:
            self._table.report_unread(self._connection, False, self._loop.time())

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to malformed HTTP (400), or to an exception that nothing has caught."""
        bug = status >= 500 and not isinstance(exc, ConnectionError)
        log.log(logging.ERROR if bug else logging.DEBUG, "a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("The response had begun, so the error closes its connection.")
        reason = (message or "The service failed").splitlines()[0].rstrip(".:")
        response = error_response(HttpError(code_of(status), f"{ascii(reason)[1:-1]}.", status=status))
        response.force_close()
        return response


async def until_client_leaves(
    request: web.BaseRequest, answering: Coroutine[Any, Any, T] | asyncio.Future[T]
) -> T:
    """Await `answering` and return its result; cancel it if the client closes the connection first.

    Raises ConnectionResetError in that case. The application must be run by JsonAppRunner.
    """
    protocol = request.protocol
    assert isinstance(protocol, _Protocol)
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(protocol.lost.wait())
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return await answer
        raise ConnectionResetError("The client has closed the connection.")
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
