"""Write answers in Ollama's form: one JSON object, or a stream with one on each line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.error_envelopes import ollama_body
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.json_text import iso_time, json_bytes
from mlx_server.gateway.requests.ticket import Ticket
from vestal.supervision import Clock

Content = Callable[[AnswerPart], dict[str, Any]]
"""A function that returns the fields for the content of a part, which differ between /api/generate and
/api/chat."""


def generate_content(part: AnswerPart) -> dict[str, Any]:
    return {"response": part.text} | _thinking(part) | _logprobs(part)


def chat_content(part: AnswerPart) -> dict[str, Any]:
    message = {"role": "assistant", "content": part.text} | _thinking(part)
    if part.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in part.tool_calls]
    return {"message": message} | _logprobs(part)


def load_answer(model: str, wall_s: float, content: Content, *, unloaded: bool) -> dict[str, Any]:
    """Return the answer to a request without a prompt, which only loads the model or, if `unloaded` is True,
    unloads it.

    `wall_s` is the time of the answer in seconds since 1970. `content` is a function that returns the fields
    for the content of an answer, which is empty here, as the route (/api/generate or /api/chat) names them.
    """
    reason = "unload" if unloaded else "load"
    return _head(model, wall_s) | content(AnswerPart()) | {"done": True, "done_reason": reason}


class AnswerLines:
    """Writes the answer to one request (an `AnswerRenderer`). `ticket` is the submitted request, from which
    the durations are computed. `content` writes the content of a part as the route's clients read it:
    `chat_content` or `generate_content`. `arrived_at` is the monotonic time, in seconds, at which the request
    arrived.
    """

    def __init__(self, model: str, ticket: Ticket, clock: Clock, content: Content, arrived_at: float) -> None:
        self._model = model
        self._ticket = ticket
        self._clock = clock
        self._content = content
        self._arrived_at = arrived_at

    def whole(self, answer: AnswerPart, done: protocol.Done) -> dict[str, Any]:
        """Return a complete answer as one object."""
        return self._head() | self._content(answer) | self._end(done)

    # --- AnswerRenderer ---

    def begin(self) -> Iterator[bytes]:
        yield from ()

    def idle(self) -> Iterator[bytes]:
        # NDJSON has no comments, and Ollama's clients fail at an empty line. Ollama itself also sends lines
        # with empty content.
        yield line(self._head() | self._content(AnswerPart()) | {"done": False})

    def part(self, index: int, part: AnswerPart) -> Iterator[bytes]:
        if part.has_content:
            yield line(self._head() | self._content(part) | {"done": False})
        if part.done:
            yield line(self._head() | self._content(AnswerPart()) | self._end(part.done))

    def end(self) -> Iterator[bytes]:
        yield from ()

    def error(self, error: GatewayError) -> Iterator[bytes]:
        yield error_line(error)

    # --- inside ---

    def _head(self) -> dict[str, Any]:
        return _head(self._model, self._clock.wall())

    def _end(self, done: protocol.Done) -> dict[str, Any]:
        """Return the reason for the end, the token counts and the durations. No count or duration is 0, since
        clients divide by them.

        As in Ollama, `load_duration` covers all work that precedes the processing of the prompt, except the
        wait in the queue: reading the body, finding the model, and loading it if it was not in memory.
        """
        usage, now, ticket = done.usage, self._clock.now(), self._ticket
        decode_s = usage.decode_s
        # After a crash, the engine knows only the time of its own tokens; for a single token it reports none.
        if ticket.first_token_at is not None and (ticket.crashes or not decode_s):
            decode_s = now - ticket.first_token_at
        context = {} if done.context is None else {"context": done.context}
        return context | {
            "done": True,
            "done_reason": "stop" if done.reason == "tool_calls" else done.reason,
            "total_duration": nanoseconds(now - self._arrived_at),
            "load_duration": nanoseconds(ticket.submitted_at - self._arrived_at + usage.load_s),
            "prompt_eval_count": max(1, usage.prompt_tokens),
            "prompt_eval_duration": nanoseconds(usage.prefill_s),
            "eval_count": max(1, usage.completion_tokens),
            "eval_duration": nanoseconds(decode_s),
        }


def error_line(error: GatewayError) -> bytes:
    """Return an error as a line that ends a stream."""
    return line(ollama_body(error))


def line(body: dict[str, Any]) -> bytes:
    """Return `body` as JSON with a line break: one line of a stream."""
    return json_bytes(body) + b"\n"


def nanoseconds(seconds: float) -> int:
    """Return a duration in nanoseconds, as Ollama reports it. It is never 0, since clients divide by it."""
    return max(1, int(seconds * 1e9))


def _head(model: str, wall_s: float) -> dict[str, Any]:
    return {"model": model, "created_at": iso_time(wall_s)}


def _thinking(part: AnswerPart) -> dict[str, Any]:
    return {"thinking": part.thinking} if part.thinking else {}


def _tool_call(call: AnswerToolCall) -> dict[str, Any]:
    """Return a tool call in Ollama's form, in which the arguments are an object."""
    return {"id": call.id, "function": {"index": call.index, "name": call.name, "arguments": call.arguments}}


def _logprobs(part: AnswerPart) -> dict[str, Any]:
    if not part.logprobs:
        return {}
    return {
        "logprobs": [
            _logprob(token.drawn)
            | ({"top_logprobs": [_logprob(each) for each in token.top]} if token.top else {})
            for token in part.logprobs
        ]
    }


def _logprob(token: protocol.TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}
