"""The guard as ASGI middleware, with the CORS headers that browser pages of allowed origins need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from vestal.web import guard
from vestal.web.guard import Policy, RequestHead
from vestal.web.http_error import HttpError

# As the ASGI specification types them; see asgiref or starlette.types.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST, DELETE, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"600"),
)


class AsgiGuard:
    """Lets in what `policy` allows.

    `respond` makes the response to a refusal, given the path of the request.
    """

    def __init__(
        self, app: ASGIApp, policy: Callable[[], Policy], respond: Callable[[HttpError, str], ASGIApp]
    ) -> None:
        self._app = app
        self._policy = policy
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        head, policy = head_of(scope), self._policy()
        if refusal := guard.check(head, policy):
            await self._respond(refusal, head.path)(scope, receive, send)
            return
        origins = head.values(b"origin")
        if not origins or policy.origin_names is None or scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        cors = [(b"access-control-allow-origin", origins[0]), (b"vary", b"Origin")]
        if guard.is_preflight(head, policy):
            headers = [*_PREFLIGHT, *cors]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, _adding(cors, send))


def head_of(scope: Scope) -> RequestHead:
    """Return the parts of the request that the guard examines.

    Without a server address, the connection counts as one over loopback. A WebSocket begins with a GET.
    """
    local_address = (scope.get("server") or ("127.0.0.1", 0))[0]
    return RequestHead(scope.get("method", "GET"), scope["path"], scope["headers"], str(local_address))


def _adding(headers: list[tuple[bytes, bytes]], send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return sending
