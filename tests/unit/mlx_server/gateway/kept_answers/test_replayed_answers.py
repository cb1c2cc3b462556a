"""An answer rebuilt from its log has the same frames, in every dialect, wherever it was cut.

See docs/decisions/0022-answers-are-replayed.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.answer_log import Silence
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.anthropic import render as anthropic
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.ollama import render as ollama
from mlx_server.gateway.dialects.openai import render as openai
from mlx_server.gateway.dialects.responses.events import ResponseEvents
from mlx_server.gateway.dialects.responses.offered_tools import offered_tools
from mlx_server.gateway.dialects.responses.output_items import OutputItems, OutputOptions
from mlx_server.gateway.dialects.responses.resource import new_response
from mlx_server.gateway.dialects.responses.running import Following, ResponseRun
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.dialects.streaming import AnswerRenderer, stream_answers
from mlx_server.gateway.kept_answers.history import Item, events_of
from mlx_server.gateway.kept_answers.rendering import Rendering
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import Ticket
from vestal.supervision import FakeClock

History = list[tuple[int, Item]]
REQUEST = sendable(GenerationRequest("m", "chat"))
LOGPROBS = protocol.Logprobs(protocol.TokenLogprob("x", (120,), -0.5), ())


@st.composite
def histories(draw: st.DrawFn, answers: int) -> History:
    """Draw the items of some answers that have ended, mixed, with keep-alives between them."""
    texts = st.sampled_from(["", "a", "ü", "\n\n", "\ud83d"])
    items: list[list[Item]] = []
    for number in range(answers):
        tokens: list[Item] = []
        for index in range(draw(st.integers(0, 5))):
            calls = (protocol.ToolCall("look", {"up": index}),) if draw(st.booleans()) else None
            token = protocol.Token(
                str(number),
                index,
                draw(texts),
                index,
                thinking=draw(st.none() | st.just("hm")),
                tool_calls=calls if index == 3 else None,
                logprobs=draw(st.none() | st.just(LOGPROBS)),
                prompt_tokens=None if index else 7,
            )
            tokens.append(token)
        items.append(
            [*tokens, protocol.Done(str(number), "stop", protocol.Usage(7, len(tokens)), draw(texts))]
        )
    history: History = []
    while any(items):
        number = draw(st.sampled_from([n for n, left in enumerate(items) if left]))
        if draw(st.integers(0, 4)) == 0:
            history.append((number, Silence(number)))
        history.append((number, items[number].pop(0)))
    return history


def _tickets(count: int, earlier: History) -> list[Ticket]:
    tickets = []
    for number in range(count):
        ticket = Ticket(f"run {len(earlier)} of {number}", REQUEST, "x", 0.0, lambda ticket: None)
        ticket.resume(ResumedRequest(ticket.id, f"r{number}", events_of(earlier, number), bool(earlier)))
        tickets.append(ticket)
    return tickets


def _ollama(answers: Answers) -> AnswerRenderer:
    return ollama.AnswerLines("m", answers.tickets[0], FakeClock(), ollama.chat_content, 0.0)


def _openai(shape: openai.AnswerShape) -> Callable[[Answers], AnswerRenderer]:
    return lambda answers: openai.AnswerChunks(
        shape, answers.id, 0, "m", prefixes=["", ""], answers_per_prompt=2, include_usage=True
    )


def _responses_run(answers: Answers) -> ResponseRun:
    body = validated({"model": "m", "input": "hello"}, CreateBody)
    response = new_response(body, offered_tools(None, None), "resp_1", 0, is_stored=False)
    events = ResponseEvents(response, OutputItems("1", OutputOptions()))
    return ResponseRun(answers, events, FakeClock(), is_streamed=True)


RENDERERS: dict[str, tuple[int, Callable[[Answers], AnswerRenderer] | None]] = {
    "/api/chat": (1, _ollama),
    "/v1/chat/completions": (2, _openai(openai.CHAT)),
    "/v1/completions": (2, _openai(openai.COMPLETION)),
    "/v1/messages": (1, lambda answers: anthropic.MessageEvents(answers.id, "m", 7)),
    "/v1/responses": (1, None),
}


async def _never() -> dict[str, object]:
    await asyncio.Event().wait()
    raise AssertionError


async def _frames(path: str, earlier: Sequence[tuple[int, Item]], later: History) -> list[bytes]:
    """Return the frames rendered from `earlier`, read from the log, and `later`, new from the engine."""
    count, renderer_for = RENDERERS[path]
    tickets = _tickets(count, list(earlier))
    answers = Answers(tickets, FakeClock(), earlier=earlier)

    def say() -> None:
        for number, item in later:
            if isinstance(item, Silence):
                answers._put(number, item)
            else:
                tickets[number].outcome = "done" if isinstance(item, protocol.Done) else None
                tickets[number].put(item)

    if renderer_for is None:
        run = _responses_run(answers)
        run.start()
        say()
        return [frame async for frame in Following(run).frames()]
    say()
    http, rendering = Request({"type": "http", "headers": []}, _never), Rendering()
    response = await stream_answers(http, answers, lambda: renderer_for(answers), "text/event-stream")
    await response({}, _never, rendering.take)
    return rendering.frames


@pytest.mark.parametrize("path", RENDERERS)
@given(data=st.data())
def test_answer_resumed_at_any_point_has_the_same_frames_as_an_uninterrupted_answer(
    path: str, data: st.DataObject
):
    history = data.draw(histories(RENDERERS[path][0]))
    cut = data.draw(st.integers(0, len(history)))

    async def both() -> tuple[list[bytes], list[bytes]]:
        undisturbed = await _frames(path, [], history)
        return undisturbed, await _frames(path, history[:cut], history[cut:])

    undisturbed, resumed = asyncio.run(both())
    assert resumed == undisturbed
