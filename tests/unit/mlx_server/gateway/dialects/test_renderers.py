"""Every dialect's stream of one answer: it can be put together again, and an error ends it readably."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerAssembler, AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.anthropic import render as anthropic
from mlx_server.gateway.dialects.ollama import render as ollama
from mlx_server.gateway.dialects.openai import render as openai
from mlx_server.gateway.dialects.streaming import AnswerRenderer, stream_answers
from mlx_server.gateway.errors import ServerFault
from mlx_server.gateway.json_text import iso_time, json_bytes, json_text
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import Ticket
from vestal.supervision import FakeClock

DONE = protocol.Done("r", "stop", protocol.Usage(7, 3))
PARTS = [AnswerPart("Hel"), AnswerPart("lo\n\n"), AnswerPart("ü", done=DONE)]


def _ticket() -> Ticket:
    def cancel(ticket: Ticket) -> None:
        ticket.outcome = "cancelled"

    return Ticket("r", sendable(GenerationRequest("m", "chat")), "ollama", 0.0, cancel)


def _ollama(content: ollama.Content) -> ollama.AnswerLines:
    return ollama.AnswerLines("m", _ticket(), FakeClock(), content, 0.0)


def _openai(shape: openai.AnswerShape) -> openai.AnswerChunks:
    return openai.AnswerChunks(shape, "r", 0, "m", prefixes=[""], answers_per_prompt=1, include_usage=True)


def _json_lines(stream: str) -> list[dict]:
    return [json.loads(line) for line in stream.splitlines()]


def _sse_data(stream: str) -> list[dict]:
    assert stream.endswith("\n\n")
    lines = [line for frame in stream.split("\n\n") for line in frame.splitlines()]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


RENDERERS: dict[
    str, tuple[Callable[[], AnswerRenderer], Callable[[str], list[dict]], Callable[[dict], str]]
] = {
    "ollama generate": (
        lambda: _ollama(ollama.generate_content),
        _json_lines,
        lambda line: line["response"],
    ),
    "ollama chat": (
        lambda: _ollama(ollama.chat_content),
        _json_lines,
        lambda line: line["message"]["content"],
    ),
    "openai chat": (
        lambda: _openai(openai.CHAT),
        _sse_data,
        lambda chunk: "".join(choice["delta"].get("content", "") for choice in chunk["choices"]),
    ),
    "openai completion": (
        lambda: _openai(openai.COMPLETION),
        _sse_data,
        lambda chunk: "".join(choice["text"] for choice in chunk["choices"]),
    ),
    "anthropic": (
        lambda: anthropic.MessageEvents("r", "m", 7),
        _sse_data,
        lambda event: event.get("delta", {}).get("text", ""),
    ),
}


def _frames(renderer: AnswerRenderer, parts: list[AnswerPart]) -> Iterator[bytes]:
    yield from renderer.begin()
    for part in parts:
        yield from renderer.part(0, part)


@pytest.mark.parametrize("name", RENDERERS)
def test_renderer_frames_of_every_api_hold_the_whole_text_in_order(name):
    make, read, text_in = RENDERERS[name]
    renderer = make()
    stream = b"".join([*_frames(renderer, PARTS), *renderer.end()]).decode()
    assert "".join(map(text_in, read(stream))) == "Hello\n\nü"


def test_ollama_durations_are_the_measured_times():
    """load_duration was once 1 ns for a loaded model, and eval_duration 1 ns for an answer of one token."""
    clock, ticket = FakeClock(), _ticket()
    ticket.submitted_at, ticket.first_token_at = clock.now() - 3.0, clock.now() - 1.0
    renderer = ollama.AnswerLines("m", ticket, clock, ollama.generate_content, clock.now() - 3.25)
    one_token = protocol.Done("r", "length", protocol.Usage(7, 1, 0.0, 1.5, 0.0))
    line = renderer.whole(AnswerPart("a"), one_token)
    names = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    assert [line[name] / 1e9 for name in names] == [3.25, 0.25, 1.5, 1.0]
    loaded = protocol.Done("r", "length", protocol.Usage(7, 2, 1.0, 0.5, 0.5))
    line = renderer.whole(AnswerPart("a"), loaded)
    assert [line[name] / 1e9 for name in names] == [3.25, 1.25, 0.5, 0.5]


def test_ollama_context_is_in_the_last_line_if_requested():
    done = protocol.Done("r", "stop", protocol.Usage(2, 1), context=(1, 2, 3))
    (line,) = _json_lines(b"".join(_ollama(ollama.generate_content).part(0, AnswerPart(done=done))).decode())
    assert (line["context"], line["done"]) == ([1, 2, 3], True)
    assert "context" not in _ollama(ollama.generate_content).whole(AnswerPart("a"), DONE)


@pytest.mark.parametrize("name", RENDERERS)
def test_renderer_error_in_mid_stream_is_the_last_object_with_its_error_code(name):
    make, read, _ = RENDERERS[name]
    renderer = make()
    error = ServerFault("engine_crashed", "The engine crashed.")
    stream = b"".join([*_frames(renderer, PARTS[:1]), *renderer.error(error)]).decode()
    last = read(stream)[-1]
    assert (last if "code" in last else last["error"])["code"] == "engine_crashed"


HALF, SEPARATORS = "\ud83d", "\u2028\u2029\u0085"
UNLIKELY = protocol.TokenLogprob(HALF, (237, 160, 189), -math.inf)
ARGUMENTS = {"half": HALF, HALF: [math.nan, math.inf, 10**400], "lines": SEPARATORS}
ODD_PART = AnswerPart(
    f"text {HALF}{SEPARATORS}",
    f"thoughts {HALF}",
    (AnswerToolCall("call_1", 0, f"name {HALF}", ARGUMENTS),),
    (protocol.Logprobs(UNLIKELY, (UNLIKELY,)),),
)
WHOLE: dict[str, Callable[[AnswerPart, protocol.Done], dict]] = {
    "ollama generate": lambda answer, done: _ollama(ollama.generate_content).whole(answer, done),
    "ollama chat": lambda answer, done: _ollama(ollama.chat_content).whole(answer, done),
    "openai chat": lambda answer, done: _openai(openai.CHAT).whole([(answer, done)]),
    "openai completion": lambda answer, done: _openai(openai.COMPLETION).whole([(answer, done)]),
    "anthropic": lambda answer, done: anthropic.whole_message("r", "m", answer, done),
}


def _strictly(text: str) -> dict:
    """Return the object in `text` as a strict JSON parser reads it. Raises AssertionError."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text.encode()  # half of a surrogate pair is not valid UTF-8
    return json.loads(text, parse_constant=refuse)


def _all_texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _all_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _all_texts(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("streamed", [False, True])
def test_renderer_given_nan_infinity_or_half_an_emoji_writes_strict_json(name, streamed):
    """A model may write NaN, 1e999 or half of an emoji, and a grammar makes tokens impossible (-Infinity)."""
    if streamed:
        renderer = RENDERERS[name][0]()
        frames = [*_frames(renderer, [ODD_PART, AnswerPart(done=DONE)]), *renderer.end()]
        lines = b"".join(frames).decode().splitlines()  # as httpx divides a stream, at more than line feeds
        texts = [line.removeprefix("data: ") for line in lines if line.startswith(("data: {", "{"))]
        assert len(texts) >= 2
        assert all(line.startswith(("data: ", "event: ", "{")) for line in lines if line)
    else:
        texts = [json_bytes(WHOLE[name](ODD_PART, DONE)).decode()]
    found = "".join(text for each in texts for text in _all_texts(_strictly(each)))
    assert "text \ufffd" in found
    assert HALF not in found
    if "completion" not in name and "generate" not in name:
        assert "name \ufffd" in found
    if "openai chat" in name:
        arguments = [
            text for each in texts for text in _all_texts(_strictly(each)) if text.startswith('{"half"')
        ]
        assert _strictly(arguments[0])["\ufffd"] == [None, None, 10**400]


@pytest.mark.parametrize("prefix", ["", "Say: "])
def test_text_offsets_of_a_streamed_completion_are_those_of_the_whole_one(prefix):
    """They began at 0 in every chunk, so that a client marked the beginning of the text for every token."""
    drawn = [protocol.TokenLogprob(text, tuple(text.encode()), -0.5) for text in ("Hello", " big", "ü")]
    parts = [AnswerPart(token.text, logprobs=(protocol.Logprobs(token, ()),)) for token in drawn]
    prefixes = ["", prefix]

    def chunks() -> openai.AnswerChunks:
        return openai.AnswerChunks(
            openai.COMPLETION, "r", 0, "m", prefixes=prefixes, answers_per_prompt=1, include_usage=False
        )

    streamed = chunks()
    stream = b"".join(frame for part in parts for i in (0, 1) for frame in streamed.part(i, part)).decode()
    for index, before in enumerate(prefixes):
        found = [
            choice for chunk in _sse_data(stream) for choice in chunk["choices"] if choice["index"] == index
        ]
        offsets = [offset for choice in found for offset in choice["logprobs"]["text_offset"]]
        text = "".join(token.text for token in drawn)
        answer = AnswerPart(text, logprobs=tuple(part.logprobs[0] for part in parts), done=DONE)
        whole = chunks().whole([(answer, DONE), (answer, DONE)])["choices"][index]
        assert offsets == whole["logprobs"]["text_offset"] == [len(before) + n for n in (0, 5, 9)]
        assert whole["text"] == before + text


def test_logprob_of_an_impossible_token_is_the_finite_number_that_openai_uses():
    event = protocol.Token("r", 1, "x", 0, logprobs=protocol.Logprobs(UNLIKELY, (UNLIKELY,)))
    (logprobs,) = AnswerAssembler("r").part_of(event).logprobs
    assert (logprobs.drawn.logprob, logprobs.top[0].logprob) == (-9999.0, -9999.0)


@pytest.mark.parametrize(
    ("time_s", "written"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (10**12, "9999-12-31T23:59:59Z"),
        (1e300, "9999-12-31T23:59:59Z"),
        (-(10**12), "0001-01-01T00:00:00Z"),
    ],
)
def test_iso_time_of_any_number_is_a_valid_date(time_s, written):
    assert iso_time(time_s) == written


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=())) | st.integers() | st.none(), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(ANYTHING)
@example(object())
@example({(1, 2): {3}})
@example([float("nan")] * 3)
def test_json_bytes_of_anything_is_one_line_of_strict_json(value):
    text = json_bytes(value).decode()
    _strictly(text)
    assert len(text.splitlines()) == 1
    _strictly(json_text(value))


def test_json_bytes_renders_a_too_deeply_nested_value_as_null_instead_of_raising():
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert json_bytes(deep) == b"null"


async def test_stream_whose_renderer_fails_ends_with_an_error_and_cancels_the_request():
    class Broken(ollama.AnswerLines):
        def part(self, index: int, part: AnswerPart) -> Iterator[bytes]:
            raise KeyError("a bug")

    ticket = _ticket()
    ticket.put(protocol.Token("r", 1, "x", 0))
    renderer = Broken("m", ticket, FakeClock(), ollama.chat_content, 0.0)
    sent: list[dict] = []

    async def receive() -> dict:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)

    http = Request({"type": "http", "headers": []}, receive)
    answers = Answers([ticket])
    response = await stream_answers(http, answers, lambda: renderer, "application/x-ndjson")
    await response({}, receive, send)  # type: ignore[arg-type]
    (line,) = b"".join(message.get("body", b"") for message in sent).splitlines()
    assert json.loads(line)["code"] == "internal_error"
    assert sent[-1]["more_body"] is False
    assert ticket.outcome == "cancelled"
