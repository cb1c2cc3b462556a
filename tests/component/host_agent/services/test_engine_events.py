"""Following the gateway's events into the journal: each is recorded once, across gateways and agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from host_agent.journal import Journal
from host_agent.services.mlx.engine_events import EngineEvents
from vestal.supervision import Event


class FakeGateway:
    """Sends the events after `since`; `instance` tells one gateway process from the next."""

    def __init__(self) -> None:
        self.instance = "first"
        self.events: list[dict[str, Any]] = []
        self.is_stopping = False
        self.requests = 0

    def emit(self, event: str, ts: float) -> None:
        head = {"ts": ts, "seq": len(self.events) + 1, "component": "mlx_engine", "event": event}
        self.events.append(head | {"cause": "", "fields": {}})

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        same = request.query["instance"] in ("", self.instance)
        since = int(request.query["since"]) if same else 0
        for _ in range(100):
            found = self.events[since:]
            if found or not same or self.is_stopping:
                break
            await asyncio.sleep(0.01)
        return web.json_response({"instance": self.instance, "events": found})


@pytest.fixture
async def gateway(free_port: Callable[[], int]) -> AsyncIterator[tuple[FakeGateway, int]]:
    fake, port = FakeGateway(), free_port()
    app = web.Application()
    app.router.add_get("/events", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield fake, port
    await runner.cleanup()


async def _until(journal: Journal, expected: list[str]) -> None:
    async with asyncio.timeout(60):
        while [entry["event"] for entry in journal.since(0)] != expected:  # noqa: ASYNC110 - a table is read
            await asyncio.sleep(0.01)


async def test_engine_events_of_two_successive_gateways_are_each_recorded_once(gateway, home):
    fake, port = gateway
    journal = Journal(home / "journal.db")
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(EngineEvents(session, port, journal).follow())
        fake.emit("child_started", 1.0)
        fake.emit("child_exited", 2.0)
        await _until(journal, ["child_started", "child_exited"])
        fake.instance, fake.events = "second", []
        fake.emit("child_started", 3.0)
        await _until(journal, ["child_started", "child_exited", "child_started"])
        fake.emit("child_ready", 4.0)
        await _until(journal, ["child_started", "child_exited", "child_started", "child_ready"])
        following.cancel()
    journal.close()


async def test_engine_events_that_an_earlier_agent_recorded_are_not_recorded_again(gateway, home):
    fake, port = gateway
    journal = Journal(home / "journal.db", wall=lambda: 10.0)
    fake.emit("child_started", 5.0)
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(EngineEvents(session, port, journal).follow())
        await _until(journal, ["child_started"])
        following.cancel()
        journal.record("agent", "agent_started")
        fake.emit("child_exited", 11.0)
        passed_on: list[Event] = []
        following = asyncio.create_task(EngineEvents(session, port, journal, passed_on.append).follow())
        await _until(journal, ["child_started", "agent_started", "child_exited"])
        following.cancel()
    assert [event.event for event in passed_on] == ["child_started", "child_exited"]
    journal.close()


async def test_engine_event_older_than_the_agents_newest_entry_is_recorded(gateway, home):
    """Earlier, all events up to the time of the journal's newest entry were dropped. These were the events of
    the last moments before an agent was replaced, and those of an hour if the clock had been an hour ahead.
    """
    fake, port = gateway
    journal = Journal(home / "journal.db", wall=lambda: 3600.0)  # this clock is an hour ahead
    fake.emit("child_started", 3590.0)
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(EngineEvents(session, port, journal).follow())
        await _until(journal, ["child_started"])
        following.cancel()
        journal.record("agent", "supervisor_detached")
        fake.emit("child_exited", 10.0)
        following = asyncio.create_task(EngineEvents(session, port, journal).follow())
        await _until(journal, ["child_started", "supervisor_detached", "child_exited"])
        following.cancel()
    journal.close()


async def test_gateway_that_stops_and_answers_at_once_is_asked_once_a_second(gateway, home):
    """Earlier, the agent sent a stopping gateway more than 1,000 requests a second."""
    fake, port = gateway
    fake.is_stopping = True
    journal = Journal(home / "journal.db")
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(EngineEvents(session, port, journal).follow())
        async with asyncio.timeout(60):
            while not fake.requests:  # noqa: ASYNC110 - a counter is read
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert fake.requests == 1
        following.cancel()
    journal.close()
