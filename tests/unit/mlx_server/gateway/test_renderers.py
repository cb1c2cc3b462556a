"""Every dialect's stream of one answer: it can be put together again, and an error ends it readably."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart
from mlx_server.gateway.dialects.anthropic import render as anthropic
from mlx_server.gateway.dialects.ollama import render as ollama
from mlx_server.gateway.dialects.openai import render as openai
from mlx_server.gateway.dialects.streaming import AnswerRenderer
from mlx_server.gateway.errors import ServerFault
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import Ticket
from vestal.supervision import FakeClock

DONE = protocol.Done("r", "stop", protocol.Usage(7, 3))
PARTS = [AnswerPart("Hel"), AnswerPart("lo\n\n"), AnswerPart("ü", done=DONE)]


def _ollama(content: ollama.Content) -> AnswerRenderer:
    ticket = Ticket("r", sendable(GenerationRequest("m", "chat")), "ollama", 0.0, lambda _: None)
    return ollama.AnswerLines("m", ticket, FakeClock(), content)


def _openai(shape: openai.AnswerShape) -> AnswerRenderer:
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
def test_renderer_frames_hold_the_whole_text_in_order(name):
    make, read, text_in = RENDERERS[name]
    renderer = make()
    stream = b"".join([*_frames(renderer, PARTS), *renderer.end()]).decode()
    assert "".join(map(text_in, read(stream))) == "Hello\n\nü"


@pytest.mark.parametrize("name", RENDERERS)
def test_renderer_error_in_the_middle_is_the_last_object_with_its_code(name):
    make, read, _ = RENDERERS[name]
    renderer = make()
    error = ServerFault("engine_crashed", "The engine crashed.")
    stream = b"".join([*_frames(renderer, PARTS[:1]), *renderer.error(error)]).decode()
    last = read(stream)[-1]
    assert (last if "code" in last else last["error"])["code"] == "engine_crashed"
