"""A foreign web page, open in a browser of this machine, sends every request that it can: none
has an effect.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

PAGE = "https://evil.example"
CHAT = {"model": "chat", "stream": False}
DEEDS: dict[str, tuple[str, str, Any]] = {
    "generate": ("POST", "/api/generate", CHAT | {"prompt": "tokens=3"}),
    "unload": ("POST", "/api/generate", {"model": "chat", "keep_alive": 0}),
    "unload by a chat": ("POST", "/api/chat", {"model": "chat", "messages": [], "keep_alive": 0}),
    "chat": ("POST", "/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": "x"}]}),
    "respond": ("POST", "/v1/responses", {"model": "chat", "input": "x"}),
    "message": ("POST", "/v1/messages", {"model": "chat", "max_tokens": 3, "messages": []}),
    "embed": ("POST", "/api/embed", {"model": "vectors", "input": "x"}),
    "pull": ("POST", "/api/pull", {"model": "smollm2:135m"}),
    "create": ("POST", "/api/create", {"model": "mine", "from": "chat", "system": "x"}),
    "copy": ("POST", "/api/copy", {"source": "chat", "destination": "mine"}),
    "delete": ("DELETE", "/api/delete", {"model": "chat"}),
    "list": ("GET", "/api/tags", None),
    "read the log of the engine": ("GET", "/events", None),
}
# What a browser sends for the page, by how the page sends it. A page cannot choose these headers.
WAYS = {
    "fetch": {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    "fetch without reading": {
        "Origin": PAGE,
        "Content-Type": "text/plain;charset=UTF-8",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "no-cors",
    },
    "form": {
        "Origin": PAGE,
        "Content-Type": "application/x-www-form-urlencoded",
        "Sec-Fetch-Mode": "navigate",
    },
    "sandboxed frame": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "page of a name like ours": {"Origin": "http://localhost.evil.example"},
    "page of another scheme's name": {"Origin": "https://app.tauri"},
    "image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "rebound name": {
        "Host": "evil.example",
        "Origin": "http://evil.example",
        "Sec-Fetch-Site": "same-origin",
    },
    "rebound name, reading": {"Host": "evil.example", "Sec-Fetch-Site": "same-origin"},
}


def state(gateway: Any) -> tuple[Any, Any]:
    """Return the state that an effective request would change: the installed models, and those in memory."""
    installed, loaded = (gateway.http.get(path).json()["models"] for path in ("/api/tags", "/api/ps"))
    return sorted(model["name"] for model in installed), sorted(model["name"] for model in loaded)


@pytest.mark.parametrize("way", WAYS)
def test_request_from_a_foreign_web_page_is_refused_and_has_no_effect(gateway: Any, way: str):
    before = state(gateway)
    assert before[1] == ["chat:latest"]
    for deed, (method, path, body) in DEEDS.items():
        headers = {"Content-Type": "application/json", **WAYS[way]}
        content = None if body is None else json.dumps(body)
        answer = gateway.http.request(method, path, content=content, headers=headers)
        assert answer.status_code == 403, (deed, answer.text)
        assert "access-control-allow-origin" not in answer.headers, deed
    assert state(gateway) == before
    requests = gateway.health()["requests"]
    assert {requests[phase] for phase in ("running", "queued", "parked", "survived_crashes")} == {0}


@pytest.mark.parametrize("way", ["fetch without reading", "image", "rebound name, reading"])
def test_request_from_a_foreign_web_page_is_refused_by_every_route(gateway: Any, way: str):
    routes = gateway.http.get("/openapi.json").json()["paths"]
    asked = [(method.upper(), path) for path, methods in routes.items() for method in methods]
    assert len(asked) > 30
    for method, path in asked:
        answer = gateway.http.request(method, path, content="{}", headers=WAYS[way])
        assert answer.status_code == 403, (method, path, answer.text)


def test_cors_preflight_from_a_foreign_web_page_is_refused_without_cors_headers(gateway: Any):
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
    answer = gateway.http.options("/api/delete", headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["app://obsidian.md", "vscode-webview://abc", "http://localhost:3000"])
def test_web_page_of_this_machine_may_read_answers_and_errors(gateway: Any, origin: str):
    body = CHAT | {"messages": [{"role": "user", "content": "tokens=3"}]}
    answer = gateway.http.post("/v1/chat/completions", json=body, headers={"Origin": origin})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    missing = gateway.http.post("/v1/chat/completions", json={}, headers={"Origin": origin})
    assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (400, origin)


def test_http_1_0_request_without_a_host_header_is_answered_with_200(gateway: Any):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as probe:
        probe.sendall(b"GET /api/version HTTP/1.0\r\n\r\n")
        received = b""
        while part := probe.recv(4096):
            received += part
    assert received.startswith(b"HTTP/1.1 200")
    assert b'"version"' in received
