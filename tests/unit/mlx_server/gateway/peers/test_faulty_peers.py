"""Peers that answer with anything, or die: no request fails by it, and no peer is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from mlx_server.gateway.kept_answers.rendering import BrokenOff
from mlx_server.gateway.peers.machine_choice import HERE, Machine
from mlx_server.gateway.peers.mirrored import MirrorBatch
from mlx_server.gateway.peers.others import Peers
from mlx_server.gateway.peers.peer import Peer, PeerLost
from mlx_server.gateway.peers.responses import ForwardToPeer
from tests.disks.answer_log_fixtures import accepted
from vestal.supervision import FakeClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BODY = b'{"model": "chat", "messages": []}'
DEEP = b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
FREE = b'{"status": "ok", "requests": {"slots": 4}}'
SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/v1/responses/resp_an-id",
    "raw_path": b"/v1/responses/resp_an-id",
    "query_string": b"",
    "headers": [],
}


class Log:
    """Stands in for the answer log, which knows no answer."""

    def status(self, answer_id: str) -> None:
        return None


@contextlib.asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """Serve all paths with `handler`, and yield the URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(body: bytes, status: int = 200) -> Handler:
    """Return a handler that answers every request with `body`."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type="application/json")

    return handle


@contextlib.asynccontextmanager
async def peers_at(handler: Handler) -> AsyncIterator[Peers]:
    """Yield the peers of a busy machine: one, which `handler` stands in for."""

    def here() -> Machine:
        return Machine(HERE, serves=True, running=1, waiting=3, slots=1)

    async with served(handler) as url:
        peer = Peer(url, "key")
        peers = Peers([peer], None, here, Log(), FakeClock(), lambda *_, **__: None)  # type: ignore[arg-type]
        try:
            yield peers
        finally:
            await peers.close()


@pytest.mark.parametrize(
    "health",
    [
        b'{"status": {"database": "up"}}',
        b'{"status": ["ok"], "requests": {"slots": 4}}',
        b'{"status": "ok", "requests": {"slots": 4, "running": 1' + b"0" * 400 + b"}}",
        b'{"status": "ok", "requests": []}',
        b'["ok"]',
        b"{}",
        b'{"status": "\xff"}',
        DEEP,
    ],
)
async def test_service_whose_health_is_not_a_gateways_is_not_treated_as_a_peer(health):
    """A status that was an object made every request a 500; nested JSON ended the start of the gateway."""
    async with peers_at(answering(health)) as peers:
        await peers.start()
        assert peers.first_living() is None
        assert await peers.place(accepted("an-id", body=BODY)) is None
        assert await peers.offer([accepted("an-id", body=BODY)]) is None
        assert await peers.holding(accepted("an-id")) is None


@pytest.mark.parametrize("reply", [b'{"want": {}, "more": ' + DEEP + b"}", b'{"want": []}', b"[", b"\xff"])
async def test_peer_whose_reply_to_mirrored_records_is_malformed_wants_no_records(reply):
    async with served(answering(reply)) as url:
        peer = Peer(url, "key")
        assert await peer.mirror(MirrorBatch("me", {"an-id": 5})) == {}
        await peer.close()


async def test_peer_whose_reply_to_mirrored_records_comes_in_pieces_is_understood():
    """Only the first piece was read, so nothing was mirrored once there were many answers."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"want": {"an', b'-id": 7', b"}}"):
            await response.write(piece)
            await asyncio.sleep(0.02)
        return response

    async with served(handle) as url:
        peer = Peer(url, "key")
        assert await peer.mirror(MirrorBatch("me", {"an-id": 9})) == {"an-id": 7}
        await peer.close()


async def dies_midway(request: web.Request) -> web.StreamResponse:
    """Stand in for a peer that has the answer, and dies once it has sent a part of it."""
    if request.path == "/health":
        return web.Response(body=FREE)
    if request.method == "HEAD":
        return web.Response()
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"the beginning")
    request.transport.close()  # type: ignore[union-attr]
    return response


async def _forwarded(handler: Handler) -> list[Any]:
    """Return the ASGI messages that a client gets who asks for a response that a peer has."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with peers_at(handler) as peers:
        await peers.start()
        await peers.holding(accepted("an-id"))
        await ForwardToPeer(None, peers, None)(SCOPE, None, send)  # type: ignore[arg-type]
    return sent


async def test_request_about_a_response_whose_peer_dies_before_answering_gets_503_with_retry_after():
    """It was a 500 with a traceback."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response(body=FREE)
        if request.method != "HEAD":
            request.transport.abort()  # type: ignore[union-attr]
        return web.Response()

    start, body = await _forwarded(handle)
    assert start["status"] == 503 and b"engine_unavailable" in body["body"]
    assert dict(start["headers"])[b"retry-after"]


async def test_response_whose_peer_dies_midway_is_left_incomplete():
    start, *parts = await _forwarded(dies_midway)
    assert start["status"] == 200
    assert [part["body"] for part in parts] == [b"the beginning"]
    assert all(part["more_body"] for part in parts)


async def test_answer_whose_peer_dies_midway_is_broken_off_without_a_traceback():
    """The reader of an answer expects `BrokenOff` of each other gateway, and a peer raised another error."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with peers_at(dies_midway) as peers:
        await peers.start()
        elsewhere = await peers.holding(accepted("an-id"))
        assert elsewhere is not None
        with pytest.raises(BrokenOff):
            await elsewhere("an-id", 0, send, has_started=False)
    assert sent[1]["body"] == b"the beginning"


async def test_request_after_the_connections_to_the_peers_were_closed_stays_on_this_machine():
    """While a gateway stops, its last requests got a 500: "Session is closed"."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=FREE) if request.path == "/health" else web.Response(status=201)

    async with peers_at(handle) as peers:
        await peers.start()
        await peers.close()
        assert await peers.place(accepted("an-id", body=BODY)) is None
        assert await peers.offer([accepted("an-id", body=BODY)]) is None
        assert await peers.holding(accepted("an-id")) is None


async def test_peer_that_was_closed_before_its_first_request_opens_no_connection():
    async with served(answering(FREE)) as url:
        peer = Peer(url, "key")
        await peer.close()
        assert await peer.health() is None and not await peer.has("an-id")
        with pytest.raises(PeerLost):
            await peer.forward(SCOPE, None, None)  # type: ignore[arg-type]


async def test_unforeseen_error_while_peers_are_asked_leaves_the_request_on_this_machine():
    """`OtherMachines` says that no method raises."""

    class Faulty(Peer):
        async def offer(self, answer_id: str, records: bytes, model_digest: str) -> str:
            raise RuntimeError("unforeseen")

        async def has(self, answer_id: str) -> bool:
            raise RuntimeError("unforeseen")

    async with peers_at(answering(FREE)) as peers:
        for url in peers._peers:
            peers._peers[url] = Faulty(url, "key")
        await peers.start()
        assert await peers.place(accepted("an-id", body=BODY)) is None
        assert await peers.offer([accepted("an-id", body=BODY)]) is None
        assert await peers.holding(accepted("an-id")) is None


@pytest.mark.parametrize("only_looks", [False, True])
async def test_copying_of_a_peers_records_ends_only_if_this_machine_continues_the_answer(only_looks):
    """Whoever only looked at a response while its peer was out of reach ended the copying for good."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=FREE) if request.path == "/health" else web.Response(status=404)

    async with peers_at(handle) as peers:
        await peers.start()
        copying = peers._copies["an-id"] = asyncio.ensure_future(asyncio.sleep(60))
        assert await peers.holding(accepted("an-id"), only_looks=only_looks) is None
        await asyncio.sleep(0)
        assert copying.cancelled() != only_looks
        copying.cancel()
