"""GET /live over real sockets: what a follower is sent at once, on change, and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from host_agent.listener.live import requests_source, status_source
from host_agent.listener.live.routes import MAX_FOLLOWERS
from tests.component.host_agent.loop_clock import LoopClock
from tests.component.host_agent.page_listener import page_listener
from vestal.supervision import State

WITHIN_S = 60.0


class FakeGateway:
    """Sends a list of requests at once, and then each item of the queue `more`."""

    def __init__(self) -> None:
        self.followers = 0
        self.more: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/requests/events"
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.followers += 1
        try:
            await response.write(b'event: requests\ndata: {"requests": [{"id": "a"}], "totals": {}}\n\n')
            while more := await self.more.get():
                await response.write(more)
        finally:
            self.followers -= 1
        return response


@pytest.fixture
async def live(
    home: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SimpleNamespace]:
    # Nothing is sent, and no connection ends, because of the time alone.
    monkeypatch.setattr(status_source, "PUSH_EACH_S", 900.0)
    monkeypatch.setattr(requests_source, "SILENT_FOR_S", 900.0)
    gateway = FakeGateway()
    async with page_listener(home, free_port, gateway.answer) as running:
        running.gateway = gateway
        yield running


class Page:
    """One connection to GET /live, and the newest event of each kind."""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self.reply = reply
        self.newest: dict[str, Any] = {}
        self.count: dict[str, int] = {}

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition(self.newest):
                await self._next()

    async def end(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(EOFError):
                while True:
                    await self._next()

    async def _next(self) -> None:
        event = ""
        while line := (await self.reply.content.readline()).strip():
            name, _, value = line.decode().partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                self.newest[event] = json.loads(value)
                self.count[event] = self.count.get(event, 0) + 1
        if self.reply.content.at_eof():
            raise EOFError


@contextlib.asynccontextmanager
async def page(live: SimpleNamespace) -> AsyncIterator[Page]:
    async with live.client.get("/live") as reply:
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream")
        assert reply.headers["Cache-Control"] == "no-store"
        yield Page(reply)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def test_live_stream_sends_status_and_requests_at_once_and_each_change_within_1500_ms(live):
    async with page(live) as one:
        await one.until(lambda newest: {"status", "requests"} <= set(newest))
        assert one.newest["status"]["services"]["ollama"]["state"] == "ready"
        assert one.newest["requests"] == {"requests": [{"id": "a"}], "totals": {}}
        live.report.state = State.BACKOFF
        live.journal.record("mlx_engine", "child_exited", "killed by SIGKILL")
        live.gateway.more.put_nowait(b'event: requests\ndata: {"requests": [], "totals": {}}\n\n')
        async with LoopClock() as clock:
            await one.until(lambda newest: newest["status"]["services"]["ollama"]["state"] == "backoff")
            await one.until(lambda newest: newest["requests"]["requests"] == [])
        assert clock.elapsed_s < 1.5


async def test_live_stream_sends_the_newest_sample_at_once_and_then_each_new_sample(live):
    history = live.context.history
    history.on_health({"requests": {"queued": 3}})
    async with page(live) as one:
        await one.until(lambda newest: "sample" in newest)
        assert one.newest["sample"]["values"]["queued"] == 3
        await one.until(lambda newest: "status" in newest)
        live.clock.now += 10
        history.on_health({"requests": {"queued": 4}})
        await one.until(lambda newest: newest["sample"]["values"]["queued"] == 4)
        hour = await (await live.client.get("/history?range=hour")).json()
    assert hour["series"]["queued"][-1] == 4 and hour["marks"] == []
    assert len(hour["times"]) == len(hour["series"]["queued"]) == 240
    async with live.client.get("/history?range=year") as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (400, "invalid_request")


async def test_live_stream_sends_open_incidents_at_once_and_then_each_change(live):
    live.journal.record("mlx_engine", "child_restarting", "killed by SIGKILL", attempt=1, delay_s=0.0)
    async with page(live) as one:
        await one.until(lambda newest: "incident" in newest)
        assert one.newest["incident"]["open"] and one.newest["incident"]["services"] == ["mlx_engine"]
        live.journal.record("mlx_engine", "child_ready")
        async with LoopClock() as clock:
            await one.until(lambda newest: not newest["incident"]["open"])
        assert clock.elapsed_s < 1
    hour = await (await live.client.get("/history?range=hour")).json()
    assert hour["marks"] == [
        {
            "ts": one.newest["incident"]["began_at"],
            "service": "mlx_engine",
            "title": hour["marks"][0]["title"],
        }
    ]


async def test_live_stream_does_not_send_a_status_again_in_which_only_uptimes_changed(live):
    async with page(live) as one:
        await one.until(lambda newest: "status" in newest)
        looks = live.report.looks
        for _ in range(100):
            live.journal.record("agent", "anything")
        await until(lambda: live.report.looks > looks)
        live.report.state = State.FAILED
        await one.until(lambda newest: newest["status"]["services"]["ollama"]["state"] == "failed")
        assert one.count["status"] == 2
        assert live.report.looks <= looks + 3  # a hundred events cause one reading a second, not a hundred


async def test_live_streams_share_one_gateway_connection_that_is_closed_when_the_last_stream_ends(live):
    async with page(live) as one, page(live) as other:
        for each in (one, other):
            await each.until(lambda newest: {"status", "requests"} <= set(newest))
        assert live.gateway.followers == 1
        other.reply.close()
        live.gateway.more.put_nowait(b"data: 1\n\n")
        await one.until(lambda newest: newest["requests"] == 1)
    await until(lambda: live.gateway.followers == 0)


async def test_live_stream_reconnects_to_a_lost_gateway_and_sends_an_empty_list_while_it_is_gone(live):
    async with page(live) as one:
        await one.until(lambda newest: "requests" in newest)
        live.gateway.more.put_nowait(b"")  # the connection ends
        await until(lambda: live.gateway.followers == 0)
        await until(lambda: live.gateway.followers == 1)
        await live.runner.cleanup()
        await one.until(lambda newest: newest["requests"] == {"requests": [], "totals": None})


async def test_live_stream_skips_to_the_newest_request_list_when_a_client_that_paused_reads_again(live):
    async with page(live) as one, page(live) as other:
        await one.until(lambda newest: "requests" in newest)
        await other.until(lambda newest: "requests" in newest)
        large = json.dumps("x" * 500_000).encode()
        for number in range(40):
            live.gateway.more.put_nowait(b"data: [%d, %b]\n\n" % (number, large))
            other.newest["requests"] = [-1]
            await other.until(lambda newest: newest["requests"] != [-1])
        await one.until(lambda newest: newest["requests"] == [39, "x" * 500_000])
        assert one.count["requests"] < 40


async def test_live_stream_beyond_the_client_limit_is_refused_with_429(live):
    async with contextlib.AsyncExitStack() as pages:
        for _ in range(MAX_FOLLOWERS):
            await pages.enter_async_context(page(live))
        async with live.client.get("/live") as reply:
            assert (reply.status, reply.headers["Retry-After"]) == (429, "15")


@pytest.mark.parametrize("how", ["the journal closes", "the listener stops"])
async def test_live_stream_ends_at_once_when_the_agent_stops(live, how):
    async with page(live) as one:
        await one.until(lambda newest: "status" in newest)
        async with LoopClock() as clock:
            if how == "the journal closes":
                live.journal.disconnect_followers()
            else:
                await live.listener.stop()
            await one.end()
        # A stop waits up to 2 s for open requests, but not for these streams.
        assert clock.elapsed_s < 0.8
