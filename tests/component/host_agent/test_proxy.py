"""The listener's proxy with fake services: which requests and responses it passes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from host_agent.listener import server
from host_agent.listener.proxy.routes import MAX_BODY_BYTES
from tests.component.host_agent.page_listener import page_listener

WITHIN_S = 60.0


class FakeService:
    """Stands in for the gateway and the orchestrator, and keeps the requests that it receives."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, dict[str, str], bytes]] = []
        self.go_on, self.client_left = asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append((request.method, request.raw_path, dict(request.headers), body))
        if request.path == "/api/chat":
            return await self._stream(request)
        if request.path == "/requests/gone":
            return web.json_response({"error": "no such request"}, status=404, headers={"Retry-After": "7"})
        if request.path == "/requests/later":
            return web.json_response({"error": "draining"}, status=503)
        if request.path == "/health":
            raise web.HTTPUnauthorized
        return web.json_response({"ok": True}, headers={"X-Request-Id": "r1", "X-Secret": "s"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(b'{"n": 1}\n')
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.client_left.set()
            raise
        await response.write(b'{"n": 2}\n')
        if b"break off" in self.received[-1][3]:
            assert request.transport
            request.transport.abort()
        return response


@pytest.fixture
async def proxied(home: Path, free_port: Callable[[], int]) -> AsyncIterator[SimpleNamespace]:
    """A listener, the fake service in place of gateway and orchestrator, and an HTTP client that sends the
    token.
    """
    service = FakeService()
    async with page_listener(home, free_port, service.answer) as running:
        running.service = service
        yield running


async def test_proxy_passes_on_body_query_and_only_allowed_headers(proxied):
    sent = {"Idempotency-Key": "k", "Accept": "application/json", "X-Other": "x", "Cookie": "a=b"}
    reply = await proxied.client.post("/orchestrator/tasks?a=%26", json={"goal": "g"}, headers=sent)
    assert (reply.status, await reply.json()) == (200, {"ok": True})
    assert reply.headers["X-Request-Id"] == "r1"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"
    assert "X-Secret" not in reply.headers
    method, path, headers, body = proxied.service.received[0]
    assert (method, path, json.loads(body)) == ("POST", "/tasks?a=%26", {"goal": "g"})
    assert headers["Authorization"] == "Bearer secret"
    assert (headers["Idempotency-Key"], headers["Content-Type"]) == ("k", "application/json")
    assert not {"X-Other", "Cookie"} & set(headers)


async def test_proxy_never_sends_the_agents_token_to_the_gateway(proxied):
    reply = await proxied.client.delete("/gateway/api/delete", json={"model": "m"})
    assert (reply.status, await reply.json()) == (200, {"ok": True})
    method, path, headers, body = proxied.service.received[0]
    assert (method, path, json.loads(body)) == ("DELETE", "/api/delete", {"model": "m"})
    assert "Authorization" not in headers


async def test_proxy_passes_on_an_error_of_the_service_unchanged(proxied):
    reply = await proxied.client.delete("/gateway/requests/gone")
    assert (reply.status, await reply.json()) == (404, {"error": "no such request"})
    assert reply.headers["Retry-After"] == "7"


async def test_proxy_adds_retry_after_to_a_503_of_a_service_that_gives_none(proxied):
    """A 503 without it came from the gateway's GET /health while it was draining."""
    reply = await proxied.client.delete("/gateway/requests/later")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert await reply.json() == {"error": "draining"}


async def test_proxy_passes_on_a_stream_line_by_line(proxied):
    async with proxied.client.post("/gateway/api/chat", json={}) as reply:
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        async with asyncio.timeout(WITHIN_S):
            # The first line arrives before the service sends the next one.
            assert await reply.content.readline() == b'{"n": 1}\n'
            proxied.service.go_on.set()
            assert await reply.content.read() == b'{"n": 2}\n'


async def test_proxy_whose_client_disconnects_ends_the_stream_from_the_service(proxied):
    async with proxied.client.post("/gateway/api/chat", json={}) as reply:
        await reply.content.readline()
        reply.close()
    async with asyncio.timeout(WITHIN_S):
        await proxied.service.client_left.wait()


async def test_proxy_of_a_replaced_agent_ends_its_streams_at_once_on_both_sides(
    proxied, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "ANSWERS_WITHIN_S", WITHIN_S)  # what a stream that does not end would take
    async with proxied.client.post("/gateway/api/chat", json={}) as reply:
        await reply.content.readline()
        began = time.monotonic()
        await proxied.listener.stop_accepting()
        assert time.monotonic() - began < WITHIN_S / 2
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.content.read()
    async with asyncio.timeout(WITHIN_S):
        await proxied.service.client_left.wait()


async def test_proxy_breaks_off_the_clients_stream_if_the_service_breaks_off(proxied):
    proxied.service.go_on.set()
    async with proxied.client.post("/gateway/api/chat", json={"model": "break off"}) as reply:
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.content.read()


async def test_proxy_passes_on_a_body_up_to_its_limit_and_answers_413_to_a_larger_one(proxied):
    proxied.service.go_on.set()
    head = {"Content-Type": "application/json"}
    reply = await proxied.client.post("/gateway/api/chat", data=BytesIO(b"x" * MAX_BODY_BYTES), headers=head)
    await reply.read()
    assert (reply.status, len(proxied.service.received[0][3])) == (200, MAX_BODY_BYTES)
    reply = await proxied.client.post(
        "/gateway/api/chat", data=BytesIO(b"x" * (MAX_BODY_BYTES + 1)), headers=head
    )
    assert (reply.status, (await reply.json())["error"]["code"]) == (413, "too_large")
    reply = await proxied.client.post("/recover", data=b"x" * 70_000, headers=head)
    assert (reply.status, (await reply.json())["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/gateway/events", 404, "not_found"),
        ("GET", "/orchestrator/../gateway/requests/x/../../events", 404, "not_found"),
        ("PUT", "/gateway/api/chat", 405, "method_not_allowed"),
        ("GET", "/orchestrator/health", 502, "upstream_refused"),
    ],
)
async def test_proxy_refuses_a_path_or_method_outside_its_allowlist_with_a_one_sentence_error(
    proxied, method, path, status, code
):
    url = URL(f"{proxied.base}{path}", encoded=True)
    reply = await proxied.client.request(method, url, headers={"Content-Type": "application/json"})
    error = (await reply.json())["error"]
    assert (reply.status, error["code"], error["message"][-1]) == (status, code, ".")


async def test_proxy_answers_411_to_a_body_without_a_content_length(proxied):
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    head = {"Content-Type": "application/json"}
    reply = await proxied.client.post("/gateway/api/show", data=pieces(), headers=head)
    assert (reply.status, (await reply.json())["error"]["code"]) == (411, "length_required")
    assert proxied.service.received == []


async def test_proxy_answers_502_if_the_service_does_not_listen(proxied):
    await proxied.runner.cleanup()
    reply = await proxied.client.get("/gateway/api/tags")
    error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (502, "gateway_unreachable")
    assert error["message"].startswith("The MLX server cannot be reached: nothing listens there;")


async def test_proxy_requires_the_cookie_the_same_origin_and_a_json_body(proxied):
    sessions = proxied.context.sessions
    session = sessions.redeem(sessions.make_link(time.time()), time.time())
    own, page = {"Origin": proxied.base}, {"Cookie": f"{proxied.cookie}={session}"}
    json_type = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(proxied.base) as browser:
        for headers, status in (
            ({**own, **json_type}, 401),
            ({**page, **json_type, "Origin": "https://evil.example"}, 403),
            ({**page, **own}, 415),  # an HTML form of another site could send such a request
            ({**page, **own, **json_type}, 200),
        ):
            async with browser.delete("/gateway/requests/x", headers=headers) as reply:
                assert reply.status == status
    assert [entry[1] for entry in proxied.service.received] == ["/requests/x"]
