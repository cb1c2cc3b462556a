"""Anthropic's API: /v1/messages, whole and streamed, and the count of a prompt's tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway import errors
from mlx_server.gateway.dialects.answer_parts import AnswerPart, Call, Tickets, whole
from mlx_server.gateway.dialects.anthropic.schema import CountBody, MessagesBody
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.streaming import SSE, StreamedAnswer, unless_left
from mlx_server.gateway.dialects.tools import as_string
from mlx_server.gateway.requests.ticket import Ticket, TicketEvent

DIALECT = "anthropic"
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def router(pieces: GatewayContext) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.post("/messages", **takes(MessagesBody, stream=SSE))
    async def messages(http: Request) -> Response:
        body = await read(http, MessagesBody, pieces.max_body_bytes)
        work = body.to_request((await pieces.models.get(body.model, "generate")).name, pieces.draw_seed())
        ticket = pieces.submit(work, http, DIALECT, body.user)
        if not body.stream:
            return await unless_left(http, ticket, _whole(ticket, body.model))
        first = await unless_left(http, ticket, ticket.next())
        return StreamedAnswer(ticket, _lines(ticket, first, body.model), SSE)

    @routes.post("/messages/count_tokens", **takes(CountBody))
    async def count_tokens(http: Request) -> Response:
        body = await read(http, CountBody, pieces.max_body_bytes)
        work = body.to_count((await pieces.models.get(body.model, "generate")).name)
        ticket = pieces.submit(work, http, DIALECT)
        done = await unless_left(http, ticket, ticket.last())
        assert isinstance(done, protocol.Done)
        return JSONResponse({"input_tokens": done.usage.prompt_tokens})

    return routes


async def _whole(ticket: Ticket, model: str) -> Response:
    part = await whole(ticket)
    assert part.done
    answer = _message(ticket, model) | {"content": _blocks(part), **_stop(part.done)}
    return JSONResponse(answer | {"usage": _usage(part.done)}, headers={"request-id": ticket.id})


async def _lines(ticket: Ticket, first: TicketEvent, model: str) -> AsyncIterator[str]:
    start = _message(ticket, model) | {"usage": {"input_tokens": _prompt_tokens(first), "output_tokens": 0}}
    yield _event("message_start", message=start)
    blocks = BlockStream()
    try:
        async for _, part in Tickets([ticket]).parts(first):
            for name, fields in blocks.push(part):
                yield _event(name, **fields)
            if part.done:
                for name, fields in blocks.close():
                    yield _event(name, **fields)
                yield _event("message_delta", delta=_stop(part.done), usage=_usage(part.done))
        yield _event("message_stop")
    except errors.GatewayError as error:  # too late for a status
        yield _event("error", **errors.anthropic_body(error))


class BlockStream:
    """Cuts an answer's parts into content blocks: one is open at a time, and each has a number. Pure."""

    def __init__(self) -> None:
        self._open: str | None = None
        self._index = -1

    def push(self, part: AnswerPart) -> list[tuple[str, dict[str, Any]]]:
        """The events that `part` makes."""
        out: list[tuple[str, dict[str, Any]]] = []
        if part.thinking:
            out += self._in("thinking", {"thinking": "", "signature": ""})
            out.append(self._delta({"type": "thinking_delta", "thinking": part.thinking}))
        if part.text:
            out += self._in("text", {"text": ""})
            out.append(self._delta({"type": "text_delta", "text": part.text}))
        for call in part.calls:
            out += self.close()
            out += self._in("tool_use", {"id": call.id, "name": call.call.name, "input": {}})
            arguments = as_string(call.call.arguments)
            out.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
            out += self.close()
        return out

    def close(self) -> list[tuple[str, dict[str, Any]]]:
        """The open block ends."""
        if self._open is None:
            return []
        self._open = None
        return [("content_block_stop", {"index": self._index})]

    def _in(self, kind: str, empty: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        if self._open == kind:
            return []
        out = self.close()
        self._open, self._index = kind, self._index + 1
        started = {"index": self._index, "content_block": {"type": kind, **empty}}
        return [*out, ("content_block_start", started)]

    def _delta(self, delta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "content_block_delta", {"index": self._index, "delta": delta}


def _message(ticket: Ticket, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{ticket.id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _blocks(part: AnswerPart) -> list[dict[str, Any]]:
    thoughts = [{"type": "thinking", "thinking": part.thinking, "signature": ""}] if part.thinking else []
    text = [{"type": "text", "text": part.text}] if part.text else []
    return [*thoughts, *text, *(_tool_use(call) for call in part.calls)]


def _tool_use(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.call.name, "input": call.call.arguments}


def _stop(done: protocol.Done) -> dict[str, Any]:
    if done.stopped_by is not None and done.reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": done.stopped_by}
    return {"stop_reason": STOP_REASONS.get(done.reason, "end_turn"), "stop_sequence": None}


def _prompt_tokens(first: TicketEvent) -> int:
    if isinstance(first, protocol.Done):
        return first.usage.prompt_tokens
    return (first.prompt_tokens or 0) if isinstance(first, protocol.Token) else 0


def _usage(done: protocol.Done) -> dict[str, int]:
    return {"input_tokens": done.usage.prompt_tokens, "output_tokens": done.usage.completion_tokens}


def _event(name: str, **fields: Any) -> str:
    body = json.dumps({"type": name, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {body}\n\n"
