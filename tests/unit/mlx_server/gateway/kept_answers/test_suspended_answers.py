"""Requests whose client leaves, and that are sent again with the same Idempotency-Key, run once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.dialects.ollama import render as ollama
from mlx_server.gateway.dialects.streaming import stream_answers
from mlx_server.gateway.kept_answers.middleware import follow
from mlx_server.gateway.requests.ticket import ClientDisconnected
from tests.disks.answer_log_fixtures import Logs
from tests.unit.mlx_server.gateway.kept_answers.kept_routes import (
    LAST,
    START,
    Client,
    Gateway,
    token,
    turns,
    until,
)
from vestal.supervision import FakeClock
from vestal.web.http_error import HttpError


class Routes:
    """A gateway with two routes: one that generates in the background, and one that streams. Each prepares
    its request until `prepared` is set.
    """

    def __init__(self, log: Any) -> None:
        self.prepared = asyncio.Event()
        self.in_background = Gateway(log, self._background)
        self.streaming = Gateway(log, self._stream)

    async def _background(self, scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()
        await self.prepared.wait()
        self.in_background.begin(scope, outlives_client=True)
        await send(START)
        await send({"type": "http.response.body", "body": b'{"status":"in_progress"}'})

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        http = Request(scope, receive)
        await http.body()
        await self.prepared.wait()
        answers = self.streaming.begin(scope)
        ticket = self.streaming.tickets[-1]
        lines = ollama.AnswerLines("m", ticket, FakeClock(), ollama.chat_content, 0.0)
        try:
            response = await stream_answers(http, answers, lambda: lines, "application/x-ndjson")
        except ClientDisconnected:
            await send({**START, "status": 499})
            await send(LAST)
            return
        await response(scope, receive, send)


@pytest.fixture
async def routes(tmp_path: Path) -> Any:
    made = Routes(await Logs(tmp_path).open())
    yield made
    await made.in_background.keeper.close()
    made.streaming.keeper.is_closed = True  # it has the same log
    await made.streaming.keeper.close()


async def _until(client: Client, text: str) -> None:
    await until(lambda: text in client.text)


@pytest.mark.parametrize("repeats_while_prepared", [False, True])
async def test_background_response_whose_client_left_while_it_was_prepared_runs_once(
    routes, repeats_while_prepared
):
    """It counted as suspended, and so ran a second time, and both runs wrote into one file."""
    gateway = routes.in_background
    first = gateway.client()
    first.send_body()
    await turns()
    first.leave()
    await turns()
    if not repeats_while_prepared:
        routes.prepared.set()
        await turns()
    second = gateway.client()
    second.send_body()
    await turns()
    routes.prepared.set()
    await _until(second, "in_progress")
    gateway.tickets[0].put(token(0, "Hello"))
    assert [ticket.outcome for ticket in gateway.tickets] == [None]
    assert await gateway.records() == ["Accepted", "Hello"]


@pytest.mark.parametrize("leaves_while_prepared", [False, True])
async def test_request_repeated_while_its_first_client_leaves_is_answered_to_the_end(
    routes, leaves_while_prepared
):
    """The first connection was seen to close while the repeated body arrived: the second client got what the
    first one had, and a clean end.
    """
    gateway = routes.streaming
    first = gateway.client()
    first.send_body()
    if not leaves_while_prepared:
        routes.prepared.set()
        await turns()
        gateway.tickets[0].put(token(0, "Hello"))
        await _until(first, "Hello")
    await turns()
    second = gateway.client()
    await turns()
    first.leave()
    await turns()
    second.send_body()
    routes.prepared.set()
    await until(lambda: bool(gateway.tickets) and not gateway.tickets[-1].ended)
    gateway.tickets[-1].put(token(1, " world"))
    gateway.tickets[-1].outcome = "done"
    gateway.tickets[-1].put(protocol.Done("r", "stop", protocol.Usage(1, 2)))
    await asyncio.wait_for(second.task, 5)
    assert (second.status, second.is_complete) == (200, True)
    assert "world" in second.text and '"done":true' in second.text
    assert ("Hello" in second.text) != leaves_while_prepared


async def test_request_with_the_key_of_a_request_whose_body_breaks_off_gets_503_and_can_be_sent_again(routes):
    """It was refused for good: "another request with this Idempotency-Key had another body"."""
    gateway = routes.streaming
    first = gateway.client()
    await turns()
    second = gateway.client()
    await turns()
    first.leave()  # before its body is complete
    await turns()
    second.send_body()
    await asyncio.wait_for(second.task, 5)
    assert (second.status, "send this one again" in second.text) == (503, True)
    third = gateway.client()
    third.send_body()
    routes.prepared.set()
    await turns()
    assert len(gateway.tickets) == 1


async def test_client_that_follows_an_answer_just_suspended_is_asked_to_try_again(routes):
    """Between finding an answer and following it, its last client may leave."""
    gateway = routes.streaming
    routes.prepared.set()
    first = gateway.client()
    first.send_body()
    await turns()
    found = await gateway.keeper.find(gateway.tickets[0].public_id)
    first.leave()
    await turns()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(HttpError) as refused:
        await follow(found, 0, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.retry_after_s, sent) == (503, 1, [])


async def test_resumed_answer_whose_client_leaves_while_it_is_prepared_is_suspended_in_the_log(routes):
    """Without that record, the next gateway went on with the answer for nobody."""
    gateway = routes.streaming
    routes.prepared.set()
    first = gateway.client()
    first.send_body()
    await turns()
    gateway.tickets[0].put(token(0, "Hello"))
    await _until(first, "Hello")
    first.leave()
    await turns()
    routes.prepared.clear()
    second = gateway.client()
    second.send_body()
    await until(lambda: any(not answer.client_left.is_set() for answer in gateway.keeper.running))
    await turns()
    second.leave()
    await turns()
    routes.prepared.set()
    await turns()
    assert await gateway.records() == ["Accepted", "Hello", "Left", "TakenUp", "Left"]
