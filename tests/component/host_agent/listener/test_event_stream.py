"""`GET /events?since=`: every saved event and every new one, each once and in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from host_agent.journal import Journal
from host_agent.listener.event_stream import EventStreams

SAVED, FIRST = 1200, 10


async def test_events_stream_after_more_saved_events_than_a_page_sends_each_event_once(
    home: Path, free_port: Callable[[], int]
):
    """Earlier, only the first 500 saved events were sent, and then the new ones."""
    journal, port = Journal(home / "journal.db"), free_port()
    for _ in range(SAVED):
        journal.record("test", "saved")
    app = web.Application()
    app.router.add_get("/events", EventStreams(journal).events)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    received: list[int] = []
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/events?since={FIRST}") as stream,
        asyncio.timeout(60),
    ):
        async for line in stream.content:
            if not line.startswith(b"data: "):
                continue
            received.append(json.loads(line.removeprefix(b"data: "))["seq"])
            if len(received) == 100:
                journal.record("test", "appended while the saved ones are sent")
            if received[-1] == SAVED:
                journal.record("test", "appended afterwards")
            if received[-1] == SAVED + 2:
                break
    assert received == list(range(FIRST + 1, SAVED + 3))
    journal.close()
    await runner.cleanup()


async def test_events_stream_from_a_number_above_the_newest_sends_new_events(
    home: Path, free_port: Callable[[], int]
):
    """A client that followed before the journal was replaced by an empty one asks for such a number."""
    journal, port = Journal(home / "journal.db"), free_port()
    app = web.Application()
    app.router.add_get("/events", EventStreams(journal).events)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/events?since=500") as stream,
        asyncio.timeout(60),
    ):
        journal.record("test", "new")
        line = b""
        while not line.startswith(b"data: "):
            line = await stream.content.readline()
    assert json.loads(line.removeprefix(b"data: "))["event"] == "new"
    journal.close()
    await runner.cleanup()
