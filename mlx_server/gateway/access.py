"""Who may ask: no browser page of elsewhere, no rebound name, and beyond this machine only with the key.

Absent `Origin` is normal for programs; a present foreign one is a page that a browser holds elsewhere. A
foreign `Host` is a name that was pointed at this machine (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_server.gateway import errors

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
OPEN_PATHS = frozenset({"/health"})
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE, HEAD, OPTIONS",
    "access-control-allow-headers": "*",
    "access-control-max-age": "600",
}


class AccessControl:
    """ASGI middleware. `more_names`: what else this machine is called; it is asked on each request.

    `keyless` are the addresses (of ours) that need no key: the Docker bridge; loopback never does.
    """

    def __init__(
        self,
        app: ASGIApp,
        api_key: str | None,
        more_names: Callable[[], frozenset[str]],
        keyless: Callable[[], frozenset[str]],
    ) -> None:
        self._app = app
        self._api_key = api_key
        self._more_names = more_names
        self._keyless = keyless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            self._check(scope, headers, origin)
        except errors.GatewayError as error:
            await errors.response(error, scope["path"])(scope, receive, send)
            return
        if origin is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=_PREFLIGHT | _cors(origin))(scope, receive, send)
        else:
            await self._app(scope, receive, _with_cors(send, origin))

    def _check(self, scope: Scope, headers: Headers, origin: str | None) -> None:
        host = headers.get("host", "")
        ours = _our_address(scope)
        # An address is no name that could have been rebound.
        if _name(host) not in LOCAL_NAMES | self._more_names() | {ours}:
            raise errors.Forbidden("foreign_host", f"this server is not called {host!r}; ask localhost")
        if origin is not None and _origin_name(origin) not in LOCAL_NAMES:
            raise errors.Forbidden("foreign_origin", f"pages of {origin} may not use this server")
        if scope["path"] not in OPEN_PATHS and self._needs_key(ours) and not self._has_key(headers):
            message = "this address needs `Authorization: Bearer` with the key set as mlx.api_key"
            raise errors.Unauthorized("missing_api_key", message)

    def _needs_key(self, ours: str) -> bool:
        if ours in self._keyless():
            return False
        try:
            return not ipaddress.ip_address(ours).is_loopback
        except ValueError:
            return True

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")  # as Anthropic's clients send it
        given, wanted = key.strip().encode(), (self._api_key or "").encode()
        return bool(wanted) and secrets.compare_digest(given, wanted)


def _our_address(scope: Scope) -> str:
    """The address of ours that the connection came to."""
    return str((scope.get("server") or ("127.0.0.1", 0))[0])


def _name(host: str) -> str:
    """`[::1]:80` → `::1`, `LocalHost:80` → `localhost`."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def _origin_name(origin: str) -> str:
    try:
        parts = urlsplit(origin)
        return (parts.hostname or "").lower() if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _cors(origin: str) -> dict[str, str]:
    return {"access-control-allow-origin": origin, "vary": "Origin"}


def _with_cors(send: Send, origin: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_cors(origin))
        await send(message)

    return sending
