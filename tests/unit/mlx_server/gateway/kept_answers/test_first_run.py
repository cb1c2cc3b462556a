"""The body of a request reaches its route although another machine is asked meanwhile to serve it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from mlx_server.gateway.answer_log import NoLog
from mlx_server.gateway.dialects import body_reading
from mlx_server.gateway.dialects.body_budget import BodyBudget, ShareBodies
from mlx_server.gateway.kept_answers.rendering import CopyElsewhere
from tests.unit.mlx_server.gateway.kept_answers.kept_routes import BODY, LAST, START, Gateway, frame, turns


class SlowPeer:
    """Other machines, one of which is asked to serve each new request, and answers only when `answers` is
    set. `asked` counts the questions, and `cancelled` those that were broken off.
    """

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = self.cancelled = 0

    async def place(self, head: Any) -> CopyElsewhere | None:
        self.asked += 1
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return None

    def stop_writing(self) -> None:
        pass


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    parts = await body_reading.receive(Request(scope, receive), 10**6)
    await send(START)
    await send(frame(b"".join(parts)))
    await send(LAST)


@pytest.fixture
async def gateway() -> Any:
    made = Gateway(NoLog(), ShareBodies(_echo, BodyBudget(10**7)))
    made.keeper.offers.others = SlowPeer()  # type: ignore[assignment]
    yield made
    await made.keeper.close()


async def test_body_reaches_the_route_although_the_peer_asked_to_serve_it_answers_after_the_read_timeout(
    gateway, monkeypatch
):
    """The reader's timeout cancelled the question to the peer, and with it the last part of the body was
    lost: the client got a 408 after 20 s.
    """
    monkeypatch.setattr(body_reading, "POLL_S", 0.005)
    peer = gateway.keeper.offers.others
    client = gateway.client()
    client.send_body()
    await asyncio.sleep(0.05)
    assert (peer.asked, peer.cancelled) == (1, 0)
    peer.answers.set()
    await asyncio.wait_for(client.task, 5)
    assert (client.status, client.text) == (200, BODY.decode())


async def test_body_that_has_arrived_is_not_refused_as_slow_while_a_peer_is_asked(gateway, monkeypatch):
    monkeypatch.setattr(body_reading, "POLL_S", 0.005)
    monkeypatch.setattr("vestal.web.connections.BODY_WINDOW_S", 0.02)
    client = gateway.client()
    client.send_body()
    await asyncio.sleep(0.1)
    assert client.sent == []
    gateway.keeper.offers.others.answers.set()
    await asyncio.wait_for(client.task, 5)
    assert client.status == 200


async def test_close_of_the_gateway_cancels_the_question_to_a_peer_and_answers_the_client_with_503(gateway):
    client = gateway.client()
    client.send_body()
    await turns()
    await gateway.keeper.close()
    await asyncio.wait_for(client.task, 5)
    assert (gateway.keeper.offers.others.cancelled, client.status) == (1, 503)
