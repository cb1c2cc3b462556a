"""Turns of the Responses API over a WebSocket that end before their response."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.websockets import WebSocket

from mlx_server.gateway.dialects.body_budget import BodyBudget, ShareBodies
from mlx_server.gateway.dialects.responses import websocket
from mlx_server.gateway.dialects.responses.stored import MemoryResponseStore, StoredResponse
from tests.unit.mlx_server.gateway.dialects.responses.test_responses_runs import a_run, a_ticket, say, settle
from vestal.supervision import FakeClock

TURN = '{"type":"response.create","model":"m","input":"hi"}'


class Responses:
    """Creates one response, which the test generates by `ticket`."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.ticket = a_ticket()
        self.store = MemoryResponseStore(3600, clock.now)
        self.context = SimpleNamespace(max_body_bytes=10**6)
        self._run = a_run(self.ticket, clock)

    def turn_of(self, socket: Any, body: Any, written: Any) -> Any:
        return socket

    async def create(self, body: Any, client: Any, find: Any) -> StoredResponse:
        self._run.start()
        return StoredResponse(self._run)


@pytest.mark.parametrize("ends_by", ["age", "failed send", "cancellation", "client that leaves"])
async def test_websocket_turn_that_ends_early_cancels_its_response(ends_by, monkeypatch):
    """At the age limit, and if a message could not be sent, the engine went on generating for nobody."""
    monkeypatch.setattr(websocket, "MAX_CONNECTED_S", 0.02 if ends_by == "age" else 3600.0)
    responses = Responses()
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "websocket.connect"})
    inbox.put_nowait({"type": "websocket.receive", "text": TURN})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if ends_by == "failed send" and len(sent) > 3:
            raise OSError("the client is gone")
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await websocket.serve(responses, WebSocket(scope, receive, send))  # type: ignore[arg-type]

    scope = {"type": "websocket", "path": "/v1/responses", "headers": [], "state": {}}
    serving = asyncio.ensure_future(ShareBodies(application, BodyBudget(10**6))(scope, inbox.get, send))
    await settle()
    say(responses.ticket, *"abcde")
    await settle()
    if ends_by == "cancellation":
        serving.cancel()
    if ends_by == "client that leaves":
        inbox.put_nowait({"type": "websocket.disconnect"})
    await asyncio.wait([serving], timeout=5)
    assert serving.cancelled() == (ends_by == "cancellation")
    assert responses.ticket.outcome == "cancelled"
