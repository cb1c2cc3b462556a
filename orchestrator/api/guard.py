"""Who may come in: the Host and Origin of a request, its token, and what its body says it is.

A service on loopback is attacked from browsers: by DNS rebinding, and by `text/plain` POSTs, which skip the
preflight. Hence the names a Host may have, our own Origin alone, and JSON only.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from orchestrator.errors import RequestRefused

OPEN_PATHS = frozenset({"/health"})
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal", "orchestrator"})
EVERYWHERE = frozenset({"0.0.0.0", "::"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(token: str, bind: str) -> Any:
    """The middleware in front of every route; an address of our own that we bind may stand in Host."""
    expected = f"Bearer {token}".encode()
    names = OWN_NAMES | ({bind.lower()} - EVERYWHERE)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        _from_here(request, names)
        if request.path not in OPEN_PATHS:
            _authorized(request, expected)
        if request.method == "POST" and request.body_exists and request.content_type != "application/json":
            raise RequestRefused(415, "not_json", "send the body with `Content-Type: application/json`.")
        return await handler(request)

    return check


def _from_here(request: web.Request, names: frozenset[str]) -> None:
    host = request.headers.get("Host", "")
    if host_name(host) not in names:
        raise RequestRefused(
            403, "forbidden_host", "the Host of this request is no name of this service; use 127.0.0.1."
        )
    # The port in Host is the published one, which only the caller knows: same origin means the same text.
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise RequestRefused(
            403, "forbidden_origin", "pages of other origins may not call this; call it from a program."
        )


def _authorized(request: web.Request, expected: bytes) -> None:
    given = request.headers.get("Authorization", "").encode(errors="replace")
    if not hmac.compare_digest(given, expected):
        raise RequestRefused(
            401,
            "unauthorized",
            "this needs the header `Authorization: Bearer <token>`; `vestal token` prints it.",
        )


def host_name(host: str) -> str:
    """`[::1]:8088` → `::1`, `LOCALHOST:8088` → `localhost`; anything odd is no name."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    odd = not host or "@" in host or parts.path or parts.query or parts.fragment
    return "" if odd else (parts.hostname or "")
