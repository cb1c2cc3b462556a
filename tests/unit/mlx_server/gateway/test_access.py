"""What the gateway lets in: names, origins, and the key beyond this machine."""

from __future__ import annotations

import pytest

from mlx_server.gateway.access import access_policy
from mlx_server.gateway.dialects.error_envelopes import error_response
from vestal.web.asgi_adapter import AsgiGuard

BRIDGE, LAN = "172.17.0.1", "192.168.1.20"


async def _status(ours: str, path: str = "/api/tags", method: str = "GET", **headers: str) -> int:
    """Return the status of the answer. With the method WEBSOCKET, a connection is asked for instead."""
    statuses: list[int] = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message) -> None:
        if message["type"].endswith("http.response.start"):
            statuses.append(message["status"])

    async def receive():
        raise AssertionError("the body is not read")

    policy = access_policy("secret", lambda: frozenset({"studio.local"}), lambda: frozenset({BRIDGE}))
    access = AsgiGuard(app, policy, error_response)
    raw = [(name.encode(), value.encode()) for name, value in ({"host": "localhost"} | headers).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "server": (ours, 11435)}
    if method == "WEBSOCKET":
        scope = {key: value for key, value in scope.items() if key != "method"} | {"type": "websocket"}
    await access(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize("ours", ["127.0.0.1", "::1", BRIDGE])
async def test_access_from_this_machine_or_its_containers_needs_no_key(ours):
    assert await _status(ours) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic secret"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "bearer secret"}, 200),
        ({"x-api-key": "secret"}, 200),
        ({"x-api-key": "wrong"}, 401),
    ],
)
async def test_access_to_a_wider_address_needs_the_key(headers, status):
    assert await _status(LAN, host=f"{LAN}:11435", **headers) == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer secret"}, 200),
        ({"authorization": "Bearer secret", "origin": "https://evil.example"}, 403),
        ({"authorization": "Bearer secret", "origin": "http://localhost:3000"}, 200),
        ({"authorization": "Bearer secret", "host": "evil.example"}, 403),
    ],
)
async def test_websocket_needs_what_a_request_needs(headers, status):
    """A WebSocket is not bound by CORS: nothing but its Origin keeps a stranger's page out."""
    asked = {"host": f"{LAN}:11435"} | headers
    assert await _status(LAN, "/v1/responses", "WEBSOCKET", **asked) == status


async def test_access_to_health_needs_no_key():
    assert await _status(LAN, "/health", host=LAN) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11435", 200),
        ("LOCALHOST", 200),
        ("[::1]:11435", 200),
        ("host.docker.internal:11435", 200),
        ("studio.local", 200),
        ("127.0.0.1", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
async def test_access_with_a_foreign_host_is_403(host, status):
    assert await _status("127.0.0.1", host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("http://localhost.evil.example", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://[", 403),
    ],
)
async def test_access_with_a_foreign_origin_is_403(origin, status):
    assert await _status("127.0.0.1", origin=origin) == status
    assert await _status("127.0.0.1", method="OPTIONS", origin=origin) == (204 if status == 200 else 403)


async def test_access_preflight_to_a_wider_address_needs_no_key():
    """Browsers send no key with a preflight, so a page could else never use the key that it has."""
    origin = {"origin": "http://localhost:3000", "host": LAN}
    assert await _status(LAN, method="OPTIONS", **origin) == 204
    assert await _status(LAN, **origin) == 401


async def test_access_with_any_content_type_is_allowed():
    """Ollama's server takes any: `curl -d` says it sends a form, and `fetch` says text/plain."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"content-type": kind, "content-length": "2"}
        assert await _status("127.0.0.1", method="POST", **headers) == 200
