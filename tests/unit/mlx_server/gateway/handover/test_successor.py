"""What a gateway that has handed over does when its successor is killed: three answers were once a 500."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mlx_server.gateway.handover import successor as successor_module
from mlx_server.gateway.handover.forwarding import ForwardToSuccessor, HandedOver
from mlx_server.gateway.handover.successor import Successor
from mlx_server.gateway.kept_answers.rendering import BrokenOff

BODY = {"type": "http.response.body", "body": b"whole", "more_body": False}
SCOPE = {"type": "http", "method": "POST", "path": "/api/chat", "query_string": b"", "headers": []}


class DyingSuccessor(Successor):
    """Dies `deaths` times before it sends anything, or after its first message with `sends_first`."""

    def __init__(self, deaths: int, *, sends_first: bool = False, dies_after_s: float = 0.0) -> None:
        super().__init__("http://127.0.0.1:9")
        self.deaths, self.sends_first, self.dies_after_s = deaths, sends_first, dies_after_s

    async def copy_answer(self, answer_id: str, first_frame: int, send: Any, *, has_started: bool) -> None:
        await self._send(send)

    async def forward(self, scope: Any, receive: Any, send: Any, *, own_key: bool = False) -> None:
        await self._send(send)

    async def _send(self, send: Any) -> None:
        if self.deaths:
            self.deaths -= 1
            if self.sends_first:
                await send({**BODY, "more_body": True})
            await asyncio.sleep(self.dies_after_s)
            raise aiohttp.ServerDisconnectedError
        await send(BODY)


class Sent(list[Any]):
    async def __call__(self, message: Any) -> None:
        self.append(message)


async def test_answer_is_read_from_the_second_successor_gateway_if_the_first_dies_before_sending_anything():
    sent = Sent()
    await DyingSuccessor(2).copy_answer_from_next("a1", 0, sent, has_started=False)
    assert sent == [BODY]


async def test_answer_is_read_from_the_next_gateway_although_the_new_one_dies_after_the_retry_time(
    monkeypatch,
):
    """The retry time once counted from the beginning of the answer, so an answer that had taken 60 s was a
    500.
    """
    monkeypatch.setattr(successor_module, "MAX_RETRY_S", 1.0)
    monkeypatch.setattr(successor_module, "ACCEPTED_AFTER_S", 0.2)
    monkeypatch.setattr(successor_module, "RETRY_S", 0.01)
    sent = Sent()
    await DyingSuccessor(4, dies_after_s=0.35).copy_answer_from_next("a1", 0, sent, has_started=False)
    assert sent == [BODY]


async def test_handed_over_answer_is_broken_off_if_no_gateway_starts_within_the_retry_time(monkeypatch):
    monkeypatch.setattr(successor_module, "MAX_RETRY_S", 0.05)
    monkeypatch.setattr(successor_module, "RETRY_S", 0.01)
    with pytest.raises(BrokenOff):
        await DyingSuccessor(10**9).copy_answer_from_next("a1", 0, Sent(), has_started=False)


async def test_handed_over_answer_is_broken_off_and_not_sent_again_if_the_successor_dies_while_sending_it():
    sent = Sent()
    with pytest.raises(BrokenOff):
        await DyingSuccessor(1, sends_first=True).copy_answer_from_next("a1", 0, sent, has_started=True)
    assert sent == [{**BODY, "more_body": True}]


async def test_request_forwarded_to_a_new_gateway_that_dies_before_answering_gets_503_with_retry_after():
    state, sent = HandedOver(), Sent()
    state.successor = DyingSuccessor(1)
    await ForwardToSuccessor(None, state)(SCOPE, None, sent)  # type: ignore[arg-type]
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"


async def unread() -> Any:
    raise AssertionError("the request has no body")


async def unused(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("the gateway has handed over")


@pytest.mark.parametrize("target", ["@127.0.0.1:{other}/admin", "http://127.0.0.1:{other}/admin", "*", "//x"])
async def test_request_target_without_a_leading_slash_is_not_forwarded_to_another_host(target, free_port):
    """A client of the gateway could once read another program's pages through it."""

    def page(name: str) -> web.Application:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(text=name)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        return app

    ports = {name: free_port() for name in ("other", "successor")}
    async with contextlib.AsyncExitStack() as stack:
        for name, port in ports.items():
            runner = web.AppRunner(page(name))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", port).start()
        successor, sent = Successor(f"http://127.0.0.1:{ports['successor']}"), Sent()
        stack.push_async_callback(successor.close)
        raw_path = target.format(other=ports["other"]).encode()
        await successor.forward({**SCOPE, "method": "GET", "raw_path": raw_path}, unread, sent)
    assert b"".join(message.get("body", b"") for message in sent) == b"successor"


async def test_request_that_arrives_while_the_gateway_closes_its_successors_client_is_503():
    state, sent = HandedOver(), Sent()
    state.successor = Successor("http://127.0.0.1:9")
    await state.successor.close()
    await ForwardToSuccessor(unused, state)(SCOPE, unread, sent)
    assert sent[0]["status"] == 503
