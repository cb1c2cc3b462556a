"""Write answers in Anthropic's form: one message of content blocks, or the events that build one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.chat.tool_choice import NO_RULES, CallFilter, CallRules
from mlx_server.gateway.dialects.error_envelopes import anthropic_body
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.json_text import json_bytes, json_text
from vestal.web import server_sent_events

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
Event = tuple[str, dict[str, Any]]
"""The name of a server-sent event, and its fields."""


def whole_message(
    answer_id: str, model: str, answer: AnswerPart, done: protocol.Done, rules: CallRules = NO_RULES
) -> dict[str, Any]:
    """Return a complete answer, which ends with `done`, as one message of Anthropic's API. The message has
    only the tool calls that `rules` accept.
    """
    answer = CallFilter(rules).apply(msgspec.structs.replace(answer, done=done))
    content = {"content": _blocks(answer), **_stop(answer.done or done)}
    return _empty_message(answer_id, model) | content | {"usage": _usage(done)}


class MessageEvents:
    """An `AnswerRenderer` that writes one answer as server-sent events, in the order that Anthropic
    prescribes. `rules` choose which of the model's tool calls are written as calls; NO_RULES accepts all. A
    call of a function that is not allowed is written as text, and calls beyond the permitted number are left
    out.
    """

    def __init__(self, answer_id: str, model: str, prompt_tokens: int, rules: CallRules = NO_RULES) -> None:
        self._filter = CallFilter(rules)
        self._message = _empty_message(answer_id, model)
        self._prompt_tokens = prompt_tokens
        self._blocks = BlockEvents()

    # --- AnswerRenderer ---

    def begin(self) -> Iterator[bytes]:
        usage = _counts(self._prompt_tokens, 0, 0)
        yield _frame("message_start", message=self._message | {"usage": usage})

    def idle(self) -> Iterator[bytes]:
        yield _frame("ping")

    def part(self, index: int, part: AnswerPart) -> Iterator[bytes]:
        part = self._filter.apply(part)
        for name, fields in self._blocks.add(part):
            yield _frame(name, **fields)
        if part.done:
            for name, fields in self._blocks.close():
                yield _frame(name, **fields)
            yield _frame("message_delta", delta=_stop(part.done), usage=_usage(part.done))

    def end(self) -> Iterator[bytes]:
        yield _frame("message_stop")

    def error(self, error: GatewayError) -> Iterator[bytes]:
        yield _frame("error", **anthropic_body(error))


class BlockEvents:
    """Returns the events that divide an answer into content blocks. At most one block is open at a time.
    Blocks are numbered from 0.
    """

    def __init__(self) -> None:
        self._open_type: str | None = None
        self._index = -1

    def add(self, part: AnswerPart) -> list[Event]:
        """Return the events that add the content of `part`."""
        events: list[Event] = []
        if part.thinking:
            events += self._open("thinking", {"thinking": "", "signature": ""})
            events.append(self._delta({"type": "thinking_delta", "thinking": part.thinking}))
        if part.text:
            events += self._open("text", {"text": ""})
            events.append(self._delta({"type": "text_delta", "text": part.text}))
        for call in part.tool_calls:
            events += self.close()
            events += self._open("tool_use", {"id": call.id, "name": call.name, "input": {}})
            arguments = json_text(call.arguments)
            events.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
            events += self.close()
        return events

    def close(self) -> list[Event]:
        """Return the event that ends the open block; an empty list if no block is open."""
        if self._open_type is None:
            return []
        self._open_type = None
        return [("content_block_stop", {"index": self._index})]

    def _open(self, block_type: str, empty: dict[str, Any]) -> list[Event]:
        """Return the events that close the open block, if there is one, and open a new block of type
        `block_type`; an empty list if a block of this type is open already. `empty` holds the new block's
        other fields as they are before any content, such as `{"text": ""}`.
        """
        if self._open_type == block_type:
            return []
        events = self.close()
        self._open_type, self._index = block_type, self._index + 1
        started = {"index": self._index, "content_block": {"type": block_type, **empty}}
        return [*events, ("content_block_start", started)]

    def _delta(self, delta: dict[str, Any]) -> Event:
        return "content_block_delta", {"index": self._index, "delta": delta}


def _empty_message(answer_id: str, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _blocks(answer: AnswerPart) -> list[dict[str, Any]]:
    thinking = {"type": "thinking", "thinking": answer.thinking, "signature": ""}
    text = {"type": "text", "text": answer.text}
    return [
        *([thinking] if answer.thinking else []),
        *([text] if answer.text else []),
        *(_tool_use(call) for call in answer.tool_calls),
    ]


def _tool_use(call: AnswerToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _stop(done: protocol.Done) -> dict[str, Any]:
    if done.stopped_by is not None and done.reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": done.stopped_by}
    return {"stop_reason": STOP_REASONS.get(done.reason, "end_turn"), "stop_sequence": None}


def _usage(done: protocol.Done) -> dict[str, int]:
    used = done.usage
    return _counts(used.prompt_tokens, used.cached_tokens, used.completion_tokens)


def _counts(prompt_tokens: int, cached_tokens: int, answer_tokens: int) -> dict[str, int]:
    """Return the token counts as Anthropic defines them: `input_tokens` excludes the prompt tokens that were
    read from the cache. Writing to the prompt cache is free here, so that no tokens count as written.
    """
    return {
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": answer_tokens,
    }


def _frame(name: str, **fields: Any) -> bytes:
    return server_sent_events.frame(json_bytes({"type": name, **fields}), name)
