"""aiohttp middleware that checks every request by the rules of `vestal.web.guard` (Host, Origin, token, size
and content type), and answers every failure in JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from vestal.web import guard, json_body
from vestal.web.guard import Policy, RequestHead
from vestal.web.http_error import STATUSES, HttpError
from vestal.web.server_sent_events import MEDIA_TYPE

READ_WITHIN_S = 10.0
_CODES = {status: code for code, status in STATUSES.items()} | {400: "invalid_request"}
_CLOSING = frozenset({"too_large", "request_timeout"})  # an unread body is dropped with its connection
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AiohttpGuard:
    """Admits the requests that `policy` allows, and turns the exceptions of their handlers into responses.

    Each service has a subclass of its own, which overrides `policy` and may override the other hooks.
    """

    response_headers: Mapping[str, str] = {}  # headers of every response that does not set them itself

    def policy(self) -> Policy:
        """Return the policy that is in force now."""
        raise NotImplementedError

    def policy_for(self, request: web.Request) -> Policy:
        """Return the policy for this request; by default, the same one for all requests."""
        return self.policy()

    def as_http_error(self, error: Exception) -> HttpError | None:
        """Return the HTTP error for one of the service's own exceptions, or None if the exception is a
        bug.
        """
        return None

    def on_refused(self, request: web.Request, error: HttpError) -> None:
        """Handle a refused request, which is answered with `error`. By default, do nothing."""

    def on_bug(self, request: web.Request, error: Exception) -> None:
        """Log an exception that the service does not know, and that is therefore a bug. The request is
        answered with the error `internal_error`.
        """

    def middleware(self) -> Middleware:
        """Return the function that an aiohttp application takes as middleware."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.handle(request, handler)

        return guarded

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the request, and return the handler's response. Return an error response if the request is
        refused or the handler raises an exception.

        Raises the handler's web.HTTPException if its status is below 400. Raises ConnectionError if the
        client is gone, or if an error occurs after the response has begun, which closes the connection.
        """
        policy = self.policy_for(request)
        try:
            if refusal := guard.check(head_of(request), policy):
                raise refusal
            response = await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = self._refuse(request, _from_aiohttp(error, request, policy.max_body_bytes))
        except Exception as error:
            if isinstance(error, ConnectionError) and _client_is_gone(request):
                raise
            response = self._refuse(request, self._http_error(request, error))
        if not response.prepared:
            for name, value in self.response_headers.items():
                response.headers.setdefault(name, value)
        return response

    def _http_error(self, request: web.Request, error: Exception) -> HttpError:
        if isinstance(error, HttpError):
            return error
        if isinstance(error, HttpProcessingError):  # a body in malformed chunks
            return HttpError("invalid_request", f"The body cannot be read: {error.message}.")
        if known := self.as_http_error(error):
            return known
        self.on_bug(request, error)
        return HttpError(
            "internal_error", f"This failed ({type(error).__name__}); the service's log says why."
        )

    def _refuse(self, request: web.Request, error: HttpError) -> web.Response:
        self.on_refused(request, error)
        if request.writer.output_size > 0:
            raise ConnectionError("The response had begun, so the error closes its connection.") from error
        return error_response(error)


def _client_is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def head_of(request: web.Request) -> RequestHead:
    """Return the parts of the request that `vestal.web.guard` examines: the method, path and headers, and the
    address of this machine that the connection came to ("" if it is unknown).
    """
    transport = request.transport
    address = transport.get_extra_info("sockname") if transport else None
    local = str(address[0]) if isinstance(address, tuple) else ""
    return RequestHead(request.method, request.path, request.raw_headers, local)


async def read_object(request: web.Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """Return the JSON object in the body; with `may_be_empty`, an empty object if there is no body.

    Raises HttpError with status 400 if the body is not a JSON object, or 408 if it does not arrive in time;
    raises aiohttp's own error (413) if the body is too large.
    """
    try:
        if request.content.is_eof():  # it came with the headers, so that there is nothing to wait for
            raw = await request.read()
        else:
            async with asyncio.timeout(READ_WITHIN_S):
                raw = await request.read()
    except TimeoutError:
        message = f"The body did not arrive within {READ_WITHIN_S:g} s; send it again, faster."
        raise HttpError("request_timeout", message) from None
    return {} if may_be_empty and not raw else json_body.parse_object(raw)


async def begin_event_stream(
    request: web.Request, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send the head of a response of server-sent events, with further `headers`, and return the response.

    Raises web.HTTPMethodNotAllowed unless the method is GET: the response to HEAD must have no body, so its
    client would take the events for the next response. aiohttp registers HEAD with each GET route, unless
    the route has `allow_head=False`.
    """
    if request.method != "GET":
        raise web.HTTPMethodNotAllowed(request.method, ["GET"])
    fixed = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
    response = web.StreamResponse(headers={**(headers or {}), **fixed})
    await response.prepare(request)
    return response


def error_response(error: HttpError) -> web.Response:
    """Return the response with the error's status and headers. Its body is the error as JSON:
    `{"error": {"code": …, "message": …}}`, with the error's `fields` as further keys beside "code".

    The connection is closed after the response if the request's body may be unread (the codes `too_large` and
    `request_timeout`), or if the error's headers ask for that.
    """
    response = web.Response(
        status=error.status, text=error.envelope(), content_type="application/json", headers=error.headers()
    )
    if error.code in _CLOSING or response.headers.get("Connection") == "close":
        response.force_close()
    return response


def code_of(status: int) -> str:
    """Return the error code of an HTTP status in `http_error.STATUSES`, such as `not_found` for 404; if it
    has none, HTTP's own name of the status in lower case, such as `length_required` for 411.
    """
    return _CODES.get(status) or HTTPStatus(status).name.lower()


def _from_aiohttp(error: web.HTTPException, request: web.Request, max_body_bytes: int | None) -> HttpError:
    """Return the HttpError for an error that aiohttp itself raises, such as 404 for an unknown address.

    Its message names the path of `request` for a 404, the method of `request` and the allowed ones for a 405,
    and the limit `max_body_bytes`, if there is one, for a 413.
    """
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and max_body_bytes is not None:
        return guard.too_large(max_body_bytes)
    code = code_of(error.status)
    if error.status == HTTPStatus.NOT_FOUND:
        return HttpError(code, f"There is nothing at {ascii(request.path[:200])}.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = error.headers["Allow"]
        message = f"This address takes {allow}, not {request.method[:20]}."
        return HttpError(code, message, headers={"Allow": allow})
    return HttpError(code, f"{error.reason}.", status=error.status)
