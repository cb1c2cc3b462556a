"""Runs an aiohttp application so that what is no HTTP request is refused in JSON too.

aiohttp refuses such bytes before any middleware sees them: in plain text, and with a traceback in the log.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from vestal.web.aiohttp_adapter import code_of, error_response
from vestal.web.http_error import HttpError

log = logging.getLogger("vestal")


class JsonAppRunner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(server.request_handler, request_factory=server.request_factory, **self._kwargs)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to bytes that are no request (400), or to an error that was not caught."""
        bug = status >= 500 and not isinstance(exc, ConnectionError)
        log.log(logging.ERROR if bug else logging.DEBUG, "a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("The response had begun, so the error closes its connection.")
        reason = (message or "The service failed").splitlines()[0].rstrip(".:")
        response = error_response(HttpError(code_of(status), f"{ascii(reason)[1:-1]}.", status=status))
        response.force_close()
        return response
