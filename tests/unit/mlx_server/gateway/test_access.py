"""Access control: names, origins, and the key beyond this machine."""

from __future__ import annotations

import pytest

from mlx_server.gateway.access import AccessControl

BRIDGE, LAN = "172.17.0.1", "192.168.1.20"


async def _status(ours: str, path: str = "/api/tags", method: str = "GET", **headers: str) -> int:
    statuses: list[int] = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive():
        raise AssertionError("the body is not read")

    access = AccessControl(app, "secret", lambda: frozenset({"studio.local"}), lambda: frozenset({BRIDGE}))
    raw = [(name.encode(), value.encode()) for name, value in ({"host": "localhost"} | headers).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "server": (ours, 11435)}
    await access(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize("ours", ["127.0.0.1", "::1", BRIDGE])
async def test_request_from_this_machine_or_its_containers_needs_no_key(ours):
    assert await _status(ours) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic secret"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "bearer secret"}, 200),
    ],
)
async def test_request_to_a_wider_address_needs_the_key(headers, status):
    assert await _status(LAN, host=f"{LAN}:11435", **headers) == status


async def test_health_needs_no_key():
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
async def test_host_that_is_not_ours_is_refused(host, status):
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
async def test_origin_of_elsewhere_is_refused(origin, status):
    assert await _status("127.0.0.1", origin=origin) == status
    assert await _status("127.0.0.1", method="OPTIONS", origin=origin) == (204 if status == 200 else 403)
