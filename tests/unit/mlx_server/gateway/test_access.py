"""Which requests the gateway admits: by Host, Origin, and the key that other machines need."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.gateway.access import access_policy
from mlx_server.gateway.dialects.error_envelopes import error_response
from vestal.web.asgi_adapter import AsgiGuard

BRIDGE, LAN = "172.17.0.1", "192.168.1.20"


Headers = list[tuple[str, str]]
# What the packages for browsers of OpenAI, Anthropic, Ollama and the AI SDK send.
CLIENTS_HEADERS = {
    *("authorization", "content-type", "accept", "user-agent", "x-requested-with", "x-api-key"),
    *("openai-beta", "openai-organization", "openai-project", "idempotency-key", "last-event-id"),
    *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"),
    *("x-stainless-lang", "x-stainless-package-version", "x-stainless-os", "x-stainless-arch"),
    *("x-stainless-runtime", "x-stainless-runtime-version", "x-stainless-retry-count"),
    *("x-stainless-timeout", "x-stainless-async", "x-stainless-helper-method", "x-stainless-poll-helper"),
    "x-stainless-custom-poll-interval",
}


async def _answer(
    ours: str,
    path: str = "/api/tags",
    method: str = "GET",
    origins: tuple[str, ...] = (),
    version: str = "1.1",
    seen: list[Any] | None = None,
    **headers: str | None,
) -> tuple[int, Headers]:
    """Return status and headers of the answer. The method WEBSOCKET stands for the start of a WebSocket.
    `seen` gets the ASGI scope that an admitted request has.
    """
    starts: list[Any] = []

    async def app(scope, receive, send) -> None:
        if seen is not None:
            seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message) -> None:
        if message["type"].endswith("http.response.start"):
            starts.append(message)

    async def receive():
        raise AssertionError("the body is not read")

    names, bridge = frozenset({"studio.local"}), frozenset({BRIDGE})
    policy = access_policy("secret", lambda: names, lambda: bridge, origins, "key of the peers")
    access = AsgiGuard(app, policy, error_response)
    named = {"host": "localhost"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in named.items() if value is not None]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "server": (ours, 11435)}
    scope |= {"http_version": version, "raw_path": path.encode()}
    if method == "WEBSOCKET":
        scope = {key: value for key, value in scope.items() if key != "method"} | {"type": "websocket"}
    await access(scope, receive, send)
    return starts[0]["status"], [(name.decode(), value.decode()) for name, value in starts[0]["headers"]]


async def _status(ours: str, path: str = "/api/tags", method: str = "GET", **more: Any) -> int:
    return (await _answer(ours, path, method, **more))[0]


def _one(headers: Headers, wanted: str) -> str | None:
    """Return the one value of a header, or None if it is absent."""
    (value,) = [value for name, value in headers if name == wanted] or (None,)
    return value


@pytest.mark.parametrize("ours", ["127.0.0.1", "::1", BRIDGE])
async def test_access_from_this_machine_or_its_containers_needs_no_api_key(ours):
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
async def test_access_through_a_network_address_needs_the_api_key(headers, status):
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
async def test_websocket_is_admitted_by_the_same_rules_as_a_request(headers, status):
    """CORS does not apply to WebSockets: only the check of the Origin keeps a foreign page out."""
    asked = {"host": f"{LAN}:11435"} | headers
    assert await _status(LAN, "/v1/responses", "WEBSOCKET", **asked) == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/streams/an-id", {"authorization": "Bearer key of the peers"}, 200),
        ("/v1/responses/resp_1", {"authorization": "Bearer key of the peers", "host": "other-mac"}, 200),
        ("/health", {"authorization": "Bearer key of the peers", "host": "other-mac:11435"}, 200),
        ("/health", {"host": "other-mac:11435"}, 403),
        ("/v1/streams/an-id", {"authorization": "Bearer another key"}, 401),
        ("/v1/streams/an-id", {"x-api-key": "key of the peers"}, 401),
        ("/v1/streams/an-id", {"authorization": "Bearer another key", "host": "other-mac"}, 403),
        ("/api/tags", {"authorization": "Bearer key of the peers"}, 401),
        ("/v1/streams", {"authorization": "Bearer key of the peers"}, 401),
        (
            "/v1/streams/x",
            {"authorization": "Bearer key of the peers", "origin": "https://evil.example"},
            403,
        ),
    ],
)
async def test_key_shared_by_peer_machines_admits_the_routes_that_peers_need_under_any_host_name(
    path, headers, status
):
    assert await _status(LAN, path, **({"host": f"{LAN}:11435"} | headers)) == status


async def test_access_to_the_health_route_needs_no_api_key():
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
        ("0.0.0.0:11435", 200),
        ("[::]:11435", 200),
        ("host.containers.internal:11435", 200),
        ("mybox.local:11435", 200),
        ("evil.example", 403),
        ("evil.local.example", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
async def test_access_with_a_foreign_host_header_is_403(host, status):
    assert await _status("127.0.0.1", host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("https://localhost", 200),
        ("http://0.0.0.0:3000", 200),
        ("app://obsidian.md", 200),
        ("file://", 200),
        ("tauri://localhost", 200),
        ("http://tauri.localhost", 200),
        ("vscode-webview://abc", 200),
        ("vscode-file://vscode-app", 200),
        ("http://localhost.evil.example", 403),
        ("https://evil.example", 403),
        ("https://app.evil.example", 403),
        ("chrome-extension://abcdef", 403),
        ("moz-extension://abcdef", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_access_with_a_foreign_origin_header_is_403(origin, status):
    assert await _status("127.0.0.1", origin=origin) == status
    assert await _status("127.0.0.1", method="OPTIONS", origin=origin) == (204 if status == 200 else 403)


async def test_access_from_foreign_web_pages_is_admitted_only_for_configured_origins():
    origins = ("https://chat.example.com", "chrome-extension://*")
    for origin in ("https://chat.example.com", "chrome-extension://abcdef", "http://localhost:1"):
        assert await _status("127.0.0.1", origins=origins, origin=origin) == 200
    for origin in ("https://evil.example", "moz-extension://abcdef", "null"):
        assert await _status("127.0.0.1", origins=origins, origin=origin) == 403
    for origin in ("https://evil.example", "null"):
        assert await _status("127.0.0.1", origins=("*",), origin=origin) == 200


async def test_access_by_http_1_0_without_a_host_header_is_admitted():
    """Simple probes speak HTTP/1.0, which has no Host."""
    assert await _status("127.0.0.1", version="1.0", host=None) == 200
    assert await _status("127.0.0.1", version="1.1", host=None) == 400


async def test_access_preflight_allows_by_name_every_header_that_clients_send():
    """The Fetch standard does not take `*` for Authorization; OpenAI's package alone sends a dozen others."""
    asked = ",".join(sorted(CLIENTS_HEADERS))
    status, headers = await _answer(
        "127.0.0.1",
        method="OPTIONS",
        origin="app://obsidian.md",
        access_control_request_method="POST",
        access_control_request_headers=asked,
    )
    assert status == 204
    assert _one(headers, "access-control-allow-origin") == "app://obsidian.md"
    allowed = (_one(headers, "access-control-allow-headers") or "").split(", ")
    assert set(allowed) == CLIENTS_HEADERS
    assert {"GET", "POST", "DELETE"} <= set((_one(headers, "access-control-allow-methods") or "").split(", "))


async def test_access_preflight_repeats_only_valid_header_names_of_the_client():
    asked = "x-a, b\tc, d:e, , " + "f" * 200
    _, headers = await _answer(
        "127.0.0.1", method="OPTIONS", origin="http://localhost", access_control_request_headers=asked
    )
    assert _one(headers, "access-control-allow-headers") == "authorization, content-type, x-a"


async def test_access_preflight_of_an_admitted_public_page_allows_the_private_network():
    """Chromium asks with this header before a page of the network may send a request to this machine."""
    page = "https://chat.example.com"
    _, headers = await _answer(
        "127.0.0.1",
        method="OPTIONS",
        origins=(page,),
        origin=page,
        access_control_request_private_network="true",
    )
    assert _one(headers, "access-control-allow-private-network") == "true"


async def test_access_refusal_for_a_wrong_key_is_readable_only_by_admitted_web_pages():
    """Without CORS headers, a page learns only that its request failed, and not that its key is wrong."""
    status, headers = await _answer(LAN, host=LAN, origin="http://localhost:3000")
    assert (status, _one(headers, "access-control-allow-origin")) == (401, "http://localhost:3000")
    assert "X-Request-Id" in (_one(headers, "access-control-expose-headers") or "")
    status, headers = await _answer(LAN, host=LAN, origin="https://evil.example")
    assert (status, _one(headers, "access-control-allow-origin")) == (403, None)


async def test_access_preflight_through_a_network_address_needs_no_api_key():
    """Browsers send no key with a preflight, so otherwise a page could never use the key that it has."""
    origin = {"origin": "http://localhost:3000", "host": LAN}
    assert await _status(LAN, method="OPTIONS", **origin) == 204
    assert await _status(LAN, **origin) == 401


async def test_access_with_any_content_type_is_admitted():
    """Ollama accepts any content type: `curl -d` says that it sends a form, and `fetch` says text/plain."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"content-type": kind, "content-length": "2"}
        assert await _status("127.0.0.1", method="POST", **headers) == 200


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://127.0.0.1:11435/health", "/health"),
        ("HTTP://localhost/v1/models/a%20b", "/v1/models/a b"),
        ("https://studio.local", "/"),
    ],
)
async def test_target_that_is_a_whole_url_is_served_by_its_path_and_its_authority_is_the_host(target, path):
    """The gateway answered 404, the agent's listener 200 (RFC 9112, section 3.2.2)."""
    seen: list[Any] = []
    assert await _status("127.0.0.1", target, host="127.0.0.1:11435", seen=seen) == 200
    (scope,) = seen
    assert scope["path"] == path and scope["raw_path"].startswith(b"/")
    authority = target.partition("://")[2].partition("/")[0]
    assert [value for name, value in scope["headers"] if name == b"host"] == [authority.encode()]


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://attacker.example/health", "localhost", 403),
        ("http://localhost/health", "attacker.example", 403),
        ("http://user@localhost/health", "localhost", 403),
        ("http:///health", "localhost", 403),
        ("http://localhost/health", None, 400),
    ],
)
async def test_target_that_is_a_whole_url_is_refused_unless_its_authority_and_the_host_are_ours(
    target, host, status
):
    assert await _status("127.0.0.1", target, host=host) == status
