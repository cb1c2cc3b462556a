"""Make output items from the parts of an answer, and the events that build them. Pure.

At most one item is open: a reasoning or a message, which grows by deltas. A function call arrives whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.chat.tool_choice import custom_input
from mlx_server.gateway.dialects.responses.messages import opaque
from mlx_server.gateway.json_text import json_text

Item = dict[str, Any]
Fields = tuple[str, dict[str, Any]]
"""The type of an event, and its fields without the event's number."""


@dataclass(frozen=True)
class _TextKind:
    """A kind of item that has text.

    The ids of such items begin with `prefix`. `empty` holds the fields of an item before it has text. The
    text is in a part of type `part_type`, which is an element of the item's field `parts`, a list. The names
    of events about the part begin with `part_events`, and the names of events about the part's text with
    `text_events`. All of these events hold the part's position in the list, in the field `index_field`.
    """

    prefix: str
    empty: Item
    parts: str
    part_type: str
    index_field: str
    part_events: str
    text_events: str


_MESSAGE = _TextKind(
    prefix="msg",
    empty={"type": "message", "role": "assistant", "content": []},
    parts="content",
    part_type="output_text",
    index_field="content_index",
    part_events="response.content_part",
    text_events="response.output_text",
)
# A local model's thoughts are sent as the summary, because every client displays a summary, and because the
# summary's events have the same names in OpenAI's API and in the Open Responses specification.
_REASONING = _TextKind(
    prefix="rs",
    empty={"type": "reasoning", "summary": []},
    parts="summary",
    part_type="summary_text",
    index_field="summary_index",
    part_events="response.reasoning_summary_part",
    text_events="response.reasoning_summary_text",
)


@dataclass
class _OpenItem:
    kind: _TextKind
    id: str
    index: int
    texts: list[str] = field(default_factory=list)
    logprobs: list[Item] = field(default_factory=list)

    def part(self, text: str) -> Item:
        part: Item = {"type": self.kind.part_type, "text": text}
        if self.kind is _MESSAGE:
            part |= {"annotations": [], "logprobs": self.logprobs}
        return part

    def item(self, status: str, parts: Sequence[Item]) -> Item:
        return {"id": self.id, **self.kind.empty, "status": status, self.kind.parts: list(parts)}


@dataclass(frozen=True)
class OutputOptions:
    """The client's options for the output.

    A call to a function that is not `allowed` becomes text; a call beyond `most_calls` is dropped. None means
    no restriction. `custom` names the tools whose input is a text. With `carries_thoughts`, a reasoning item
    also holds the thoughts in an opaque form, which the client sends back later. If `generates` is False, the
    client asked for no answer, so that there is no item at all.
    """

    allowed: frozenset[str] | None = None
    most_calls: int | None = None
    carries_thoughts: bool = False
    custom: frozenset[str] = frozenset()
    generates: bool = True


class OutputItems:
    """Builds the output items of one response. `suffix` makes the ids of the items unique."""

    def __init__(self, suffix: str, options: OutputOptions) -> None:
        self._suffix = suffix
        self._options = options
        self._finished: list[Item] = []
        self._open: _OpenItem | None = None
        self._calls = 0

    @property
    def items(self) -> list[Item]:
        """Return all items. The open item has the text that has arrived so far."""
        if self._open is None:
            return list(self._finished)
        return [*self._finished, self._whole(self._open, "in_progress")]

    def add(self, part: AnswerPart) -> list[Fields]:
        """Return the events that add the content of `part`."""
        events: list[Fields] = []
        if part.thinking:
            events += self._add_text(_REASONING, part.thinking, ())
        if part.text:
            events += self._add_text(_MESSAGE, part.text, part.logprobs)
        for call in part.tool_calls:
            if self._options.allowed is not None and call.name not in self._options.allowed:
                as_text = json_text({"name": call.name, "arguments": call.arguments})
                events += self._add_text(_MESSAGE, as_text, ())
            elif self._options.most_calls is None or self._calls < self._options.most_calls:
                self._calls += 1
                is_custom = call.name in self._options.custom
                events += [
                    *self.close(),
                    *(self._add_custom_call(call) if is_custom else self._add_call(call)),
                ]
        return events

    def end(self, status: str) -> list[Fields]:
        """Return the events that end the output; the open item gets `status`. An empty answer becomes a
        message without text, unless the request had `generate: false`.
        """
        events: list[Fields] = []
        if self._open is None and not self._finished and self._options.generates:
            events += self._open_item(_MESSAGE)
        return events + self.close(status)

    def close(self, status: str = "completed") -> list[Fields]:
        """Return the events that end the open item with `status`; an empty list if no item is open."""
        if self._open is None:
            return []
        opened, self._open = self._open, None
        text = "".join(opened.texts)
        done: dict[str, Any] = {"text": text}
        if opened.kind is _MESSAGE:
            done["logprobs"] = opened.logprobs
        item = self._whole(opened, status)
        self._finished.append(item)
        return [
            (f"{opened.kind.text_events}.done", self._place(opened) | done),
            (f"{opened.kind.part_events}.done", self._place(opened) | {"part": opened.part(text)}),
            ("response.output_item.done", {"output_index": opened.index, "item": item}),
        ]

    def _add_text(self, kind: _TextKind, text: str, logprobs: Iterable[protocol.Logprobs]) -> list[Fields]:
        events = [] if self._open and self._open.kind is kind else [*self.close(), *self._open_item(kind)]
        opened = self._open
        assert opened is not None
        opened.texts.append(text)
        delta: dict[str, Any] = {"delta": text}
        if kind is _MESSAGE:
            rows = [_logprob(token) for token in logprobs]
            opened.logprobs += rows
            delta["logprobs"] = rows
        events.append((f"{kind.text_events}.delta", self._place(opened) | delta))
        return events

    def _open_item(self, kind: _TextKind) -> list[Fields]:
        index = len(self._finished)
        opened = self._open = _OpenItem(kind, f"{kind.prefix}_{self._suffix}_{index}", index)
        added = {"output_index": index, "item": opened.item("in_progress", [])}
        return [
            ("response.output_item.added", added),
            (f"{kind.part_events}.added", self._place(opened) | {"part": opened.part("")}),
        ]

    def _add_call(self, call: AnswerToolCall) -> list[Fields]:
        index = len(self._finished)
        item = {"id": f"fc_{self._suffix}_{index}", "type": "function_call", "status": "in_progress"}
        item |= {"call_id": call.id, "name": call.name, "arguments": ""}
        arguments = json_text(call.arguments)
        finished = item | {"status": "completed", "arguments": arguments}
        self._finished.append(finished)
        place = {"item_id": item["id"], "output_index": index}
        done = place | {"name": call.name, "arguments": arguments}
        return [
            ("response.output_item.added", {"output_index": index, "item": item}),
            ("response.function_call_arguments.delta", place | {"delta": arguments}),
            ("response.function_call_arguments.done", done),
            ("response.output_item.done", {"output_index": index, "item": finished}),
        ]

    def _add_custom_call(self, call: AnswerToolCall) -> list[Fields]:
        index = len(self._finished)
        item = {"id": f"ctc_{self._suffix}_{index}", "type": "custom_tool_call", "status": "in_progress"}
        item |= {"call_id": call.id, "name": call.name, "input": ""}
        text = custom_input(call)
        finished = item | {"status": "completed", "input": text}
        self._finished.append(finished)
        place = {"item_id": item["id"], "output_index": index}
        return [
            ("response.output_item.added", {"output_index": index, "item": item}),
            ("response.custom_tool_call_input.delta", place | {"delta": text}),
            ("response.custom_tool_call_input.done", place | {"input": text}),
            ("response.output_item.done", {"output_index": index, "item": finished}),
        ]

    def _place(self, opened: _OpenItem) -> dict[str, Any]:
        return {"item_id": opened.id, "output_index": opened.index, opened.kind.index_field: 0}

    def _whole(self, opened: _OpenItem, status: str) -> Item:
        text = "".join(opened.texts)
        item = opened.item(status, [opened.part(text)])
        if opened.kind is _REASONING and self._options.carries_thoughts:
            item["encrypted_content"] = opaque(text)
        return item


def _logprob(token: protocol.Logprobs) -> Item:
    return _token(token.drawn) | {"top_logprobs": [_token(other) for other in token.top]}


def _token(token: protocol.TokenLogprob) -> Item:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}
