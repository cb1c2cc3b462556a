"""Streams begin in time, are never silent for long, and report a failure in their own dialect.

Real clients read the keep-alive of every dialect: it must add nothing to what they show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import ollama
import pytest
from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart
from mlx_server.gateway.dialects.answers import KEEP_ALIVE_S, Answers
from mlx_server.gateway.dialects.anthropic import render as anthropic_render
from mlx_server.gateway.dialects.ollama import render as ollama_render
from mlx_server.gateway.dialects.openai import render as openai_render
from mlx_server.gateway.dialects.streaming import SSE, AnswerRenderer, StreamedResponse, stream_answers
from mlx_server.gateway.errors import BadRequest, GatewayError, ServerFault
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket
from tests.lazy_packages import LazyPackage
from vestal.supervision import FakeClock

if TYPE_CHECKING:
    import anthropic
    import openai
else:
    anthropic = LazyPackage("anthropic")
    openai = LazyPackage("openai")

USAGE = protocol.Usage(7, 2)
NEVER = 3600.0


def a_ticket(request_id: str = "r") -> Ticket:
    def cancel(ticket: Ticket) -> None:
        ticket.outcome = "cancelled"
        ticket.put(ClientDisconnected())

    return Ticket(request_id, sendable(GenerationRequest("m", "chat")), "openai", 0.0, cancel)


def say(ticket: Ticket, *texts: str) -> None:
    for index, text in enumerate(texts):
        ticket.put(protocol.Token(ticket.id, index, text, index, prompt_tokens=None if index else 7))


def end(ticket: Ticket) -> None:
    ticket.outcome = "done"
    ticket.put(protocol.Done(ticket.id, "stop", USAGE))


def fail(ticket: Ticket, error: GatewayError) -> None:
    ticket.outcome = error.code
    ticket.put(error)


class Plain(AnswerRenderer):
    """Writes each part, and each keep-alive, as a word."""

    def begin(self) -> list[bytes]:
        return [b"begin "]

    def idle(self) -> list[bytes]:
        return [b"idle "]

    def part(self, index: int, part: AnswerPart) -> list[bytes]:
        return [f"{index}:{part.text} ".encode()]

    def end(self) -> list[bytes]:
        return [b"end"]

    def error(self, error: GatewayError) -> list[bytes]:
        return [f"error:{error.code}".encode()]


async def _never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


class Client:
    """Sends one request for a stream, and keeps what it has received so far."""

    def __init__(self, answers: Answers, renderer: AnswerRenderer | None = None) -> None:
        self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.idled = asyncio.Event()
        self._task = asyncio.ensure_future(self._read(answers, renderer or Plain()))

    async def _read(self, answers: Answers, renderer: AnswerRenderer) -> None:
        response = await stream_answers(
            Request({"type": "http", "headers": []}, _never), answers, lambda: renderer, SSE
        )
        assert isinstance(response, StreamedResponse)
        await response({}, _never, self._take)

    async def _take(self, message: Any) -> None:
        self.headers |= dict(message.get("headers", ()))
        self.body += message.get("body", b"")
        if b"idle" in self.body:
            self.idled.set()

    async def so_far(self) -> str:
        for _ in range(20):
            await asyncio.sleep(0)
        return self.body.decode()

    async def whole(self) -> str:
        await self._task
        return self.body.decode()


async def test_stream_without_a_first_token_in_time_begins_with_a_keep_alive():
    ticket = a_ticket()
    client = Client(Answers([ticket], FakeClock(), begin_after_s=0.001))
    await asyncio.sleep(0.02)
    assert await client.so_far() == "begin idle "
    assert client.headers[b"x-request-id"] == client.headers[b"request-id"] == b"r"
    say(ticket, "a")
    end(ticket)
    assert await client.whole() == "begin idle 0:a 0: end"


async def test_stream_whose_first_token_comes_in_time_has_no_keep_alive():
    ticket = a_ticket()
    client = Client(Answers([ticket], FakeClock(), begin_after_s=NEVER))
    assert await client.so_far() == ""
    say(ticket, "a")
    end(ticket)
    assert await client.whole() == "begin 0:a 0: end"


async def test_stream_sends_keep_alives_only_while_no_tokens_come():
    """Node drops a body that is silent for 300 s, and httpx one that is silent for 5 s."""
    clock, ticket = FakeClock(), a_ticket()
    client = Client(Answers([ticket], clock, begin_after_s=NEVER))
    for index in range(10):
        ticket.put(protocol.Token("r", index, "x", index))
        await clock.run_for(KEEP_ALIVE_S / 2)
    assert "idle" not in await client.so_far()
    before = len(client.body)
    await clock.run_for(30)
    assert 30 / (2 * KEEP_ALIVE_S) <= client.body[before:].count(b"idle") <= 30 / KEEP_ALIVE_S
    end(ticket)
    assert (await client.whole()).endswith("idle 0: end")


async def test_stream_to_a_client_that_does_not_read_has_at_most_one_pending_keep_alive():
    clock, ticket = FakeClock(), a_ticket()
    parts = Answers([ticket], clock).parts()
    first = asyncio.ensure_future(anext(parts))
    await clock.run_for(600)
    assert await first is None
    say(ticket, "a")
    assert [await anext(parts), await anext(parts)] == [None, (0, AnswerPart("a"))]


async def test_stream_that_fails_before_its_headers_is_answered_with_the_errors_own_status():
    ticket = a_ticket()
    client = Client(Answers([ticket], FakeClock(), begin_after_s=NEVER))
    await client.so_far()
    fail(ticket, BadRequest("context_exceeded", "Too long."))
    with pytest.raises(BadRequest):
        await client.whole()


async def test_stream_sends_nothing_while_an_unloaded_model_is_read_to_check_the_request():
    ticket = a_ticket()
    ticket.is_read_for = True
    client = Client(Answers([ticket], FakeClock(), begin_after_s=0.001))
    await asyncio.sleep(0.02)
    assert await client.so_far() == ""
    fail(ticket, BadRequest("context_exceeded", "Too long."))
    with pytest.raises(BadRequest):
        await client.whole()


async def test_stream_of_several_answers_fails_with_an_error_status_if_one_fails_before_the_headers():
    tickets = [a_ticket(), a_ticket("s")]
    client = Client(Answers(tickets, FakeClock(), begin_after_s=NEVER))
    await client.so_far()
    fail(tickets[1], BadRequest("context_exceeded", "Too long."))
    with pytest.raises(BadRequest):
        await client.whole()
    assert tickets[0].outcome == "cancelled"


async def test_stream_that_fails_after_its_headers_ends_with_an_error_event():
    ticket = a_ticket()
    client = Client(Answers([ticket], FakeClock(), begin_after_s=0.001))
    await client.idled.wait()
    fail(ticket, ServerFault("engine_crashed", "It crashed."))
    assert await client.whole() == "begin idle error:engine_crashed"


async def test_stream_of_several_answers_sends_keep_alives_until_the_last_one_has_ended():
    clock, tickets = FakeClock(), [a_ticket(), a_ticket("s")]
    client = Client(Answers(tickets, clock, begin_after_s=NEVER))
    say(tickets[0], "a")
    end(tickets[0])
    await clock.run_for(2 * KEEP_ALIVE_S)
    assert (await client.so_far()).startswith("begin 0:a 0: idle ")
    end(tickets[1])
    assert (await client.whole()).endswith("1: end")


# --- the keep-alives, read by real clients ---


def _frames(renderer: AnswerRenderer) -> bytes:
    """Return a stream with a keep-alive in every place that a client can meet one in."""
    idle = list(renderer.idle())
    steps = [
        list(renderer.begin()),
        list(renderer.part(0, AnswerPart("Hel"))),
        list(renderer.part(0, AnswerPart("lo", done=protocol.Done("r", "stop", USAGE)))),
    ]
    return b"".join(frame for step in steps for frame in [*step[:-1], *step[-1:], *idle]) + b"".join(
        renderer.end()
    )


def _sse(renderer: AnswerRenderer) -> httpx2.Client:
    content, headers = _frames(renderer), {"content-type": SSE}
    respond = lambda request: httpx2.Response(200, content=content, headers=headers)  # noqa: E731
    return httpx2.Client(transport=httpx2.MockTransport(respond))


def _chunks(shape: openai_render.AnswerShape) -> openai_render.AnswerChunks:
    return openai_render.AnswerChunks(
        shape, "r", 0, "m", prefixes=[""], answers_per_prompt=1, include_usage=True
    )


def _openai_client(shape: openai_render.AnswerShape) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=_sse(_chunks(shape)))


def _chat() -> str:
    client = _openai_client(openai_render.CHAT)
    stream = client.chat.completions.create(model="m", messages=[], stream=True)
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def _completion() -> str:
    stream = _openai_client(openai_render.COMPLETION).completions.create(model="m", prompt="", stream=True)
    return "".join(choice.text for chunk in stream for choice in chunk.choices)


def _message() -> str:
    http = _sse(anthropic_render.MessageEvents("r", "m", 7))
    client = anthropic.Anthropic(api_key="none", base_url="http://x", http_client=http)
    with client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        return stream.get_final_message().content[0].text  # type: ignore[union-attr]


def _ollama(content: ollama_render.Content) -> ollama.Client:
    lines = _frames(ollama_render.AnswerLines("m", a_ticket(), FakeClock(), content, 0.0))
    return ollama.Client(
        host="http://x", transport=httpx.MockTransport(lambda request: httpx.Response(200, content=lines))
    )


def _ollama_chat() -> str:
    client = _ollama(ollama_render.chat_content)
    return "".join(part.message.content or "" for part in client.chat("m", [], stream=True))


def _ollama_generate() -> str:
    client = _ollama(ollama_render.generate_content)
    return "".join(part.response or "" for part in client.generate("m", "x", stream=True))


@pytest.mark.parametrize("read", [_chat, _completion, _message, _ollama_chat, _ollama_generate])
def test_keep_alives_in_a_stream_do_not_change_what_a_real_client_reads(read: Callable[[], str]):
    assert read() == "Hello"
