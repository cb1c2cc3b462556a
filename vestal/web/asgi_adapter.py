"""ASGI middleware that refuses requests by the rules of `vestal.web.guard`, and adds the CORS headers for
browser pages of allowed origins.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from vestal.web import guard
from vestal.web.guard import Policy, RequestHead
from vestal.web.http_error import HttpError

# As the ASGI specification types them; see asgiref or starlette.types.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
_METHODS = b"GET, POST, DELETE, HEAD, OPTIONS"
_ALWAYS_ALLOWED = (b"authorization", b"content-type")
_EXPOSED = b"Retry-After, X-Request-Id"
_PREFLIGHT_MAX_AGE_S = b"600"
_ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/]*)(.*)", re.DOTALL)
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")


class AsgiGuard:
    """Passes the requests that the policy admits to `app`, and answers CORS preflights itself.

    The target of a request may be a whole URL (`GET http://localhost/health`). The app then receives the path
    of that URL as the path, and the URL's authority (host and port) as the Host header. The policy must admit
    both this authority and the Host that the client sent.

    `policy` returns the policy in force. `respond` takes a refusal and the path of the request, and returns
    the response to it.
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
        policy, sent = self._policy(), scope
        scope = in_origin_form(sent)
        head = head_of(scope)
        origin = guard.admitted_origin(head, policy)
        if origin is not None and scope["type"] == "http":
            send = _adding(_cors_headers(origin), send)
        sent_head = head if scope is sent else replace(head, headers=sent["headers"])
        if refusal := guard.check(sent_head, policy) or guard.check(head, policy):
            await self._respond(refusal, head.path)(scope, receive, send)
        elif scope["type"] == "http" and guard.is_preflight(head, policy):
            await send({"type": "http.response.start", "status": 204, "headers": _preflight_headers(head)})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, send)


def in_origin_form(scope: Scope) -> Scope:
    """Return `scope`, or a copy with the path and the Host of the URL that is the request's target. Servers
    must accept such a target, which clients of proxies send (RFC 9112, section 3.2.2).
    """
    url = _ABSOLUTE_FORM.fullmatch(scope.get("raw_path") or b"")
    if url is None:
        return scope
    raw_path = url[2] or b"/"
    headers = [pair for pair in scope["headers"] if pair[0].lower() != b"host"]
    path = unquote(raw_path.decode("latin-1"))
    return {**scope, "path": path, "raw_path": raw_path, "headers": [(b"host", url[1]), *headers]}


def head_of(scope: Scope) -> RequestHead:
    """Return the parts of the request that `vestal.web.guard` examines.

    If `scope` has no server address, the connection counts as one over loopback. The method of a WebSocket's
    opening request is GET, which its scope does not say.
    """
    local_address = (scope.get("server") or ("127.0.0.1", 0))[0]
    method, version = scope.get("method", "GET"), scope.get("http_version", "1.1")
    return RequestHead(method, scope["path"], scope["headers"], str(local_address), version)


def _cors_headers(origin: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that let a page of an admitted origin read the response, even a refusal."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    ]


def _preflight_headers(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer to a CORS preflight. They allow every request header that the
    preflight names.

    Clients send many headers: OpenAI's a dozen named X-Stainless-*, Anthropic's Anthropic-Version and others.
    The answer names them one by one, because the Fetch standard does not take `*` for Authorization.
    """
    asked = b",".join(head.values(b"access-control-request-headers")).lower().split(b",")
    names = [name.strip() for name in asked if _HEADER_NAME.fullmatch(name.strip())]
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", b", ".join(dict.fromkeys((*_ALWAYS_ALLOWED, *names)))),
        (b"access-control-max-age", _PREFLIGHT_MAX_AGE_S),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
    if head.values(b"access-control-request-private-network") == [b"true"]:
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers


def _adding(headers: list[tuple[bytes, bytes]], send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return sending
