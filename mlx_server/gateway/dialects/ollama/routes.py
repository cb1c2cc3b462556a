"""Ollama's API for text and vectors: /api/generate, /api/chat, /api/embed, /api/embeddings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway import errors
from mlx_server.gateway.dialects.answer_parts import AnswerPart, Call, Tickets, whole
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read
from mlx_server.gateway.dialects.context import GatewayContext, embed
from mlx_server.gateway.dialects.ollama import schema as ollama_schema
from mlx_server.gateway.dialects.streaming import NDJSON, StreamedAnswer, unless_left
from mlx_server.gateway.requests.model_requests import GenerationRequest, LoadRequest, UnloadRequest
from mlx_server.gateway.requests.ticket import Ticket

DIALECT = "ollama"
Wording = Callable[[AnswerPart], dict[str, Any]]
"""Puts a part of an answer where the route's answers have it."""


def _as_response(part: AnswerPart) -> dict[str, Any]:
    return {"response": part.text} | _thinking(part) | _logprobs(part)


def _as_message(part: AnswerPart) -> dict[str, Any]:
    message = {"role": "assistant", "content": part.text} | _thinking(part)
    if part.calls:
        message["tool_calls"] = [_call(call) for call in part.calls]
    return {"message": message} | _logprobs(part)


def _thinking(part: AnswerPart) -> dict[str, Any]:
    return {"thinking": part.thinking} if part.thinking else {}


def _call(call: Call) -> dict[str, Any]:
    """Ollama gives a call's arguments as an object."""
    function = {"index": call.index, "name": call.call.name, "arguments": call.call.arguments}
    return {"id": call.id, "function": function}


def _logprobs(part: AnswerPart) -> dict[str, Any]:
    if not part.chances:
        return {}
    return {
        "logprobs": [
            _chance(chances.drawn) | {"top_logprobs": [_chance(chance) for chance in chances.top]}
            for chances in part.chances
        ]
    }


def _chance(chance: protocol.TokenLogprob) -> dict[str, Any]:
    return {"token": chance.text, "logprob": chance.logprob, "bytes": list(chance.bytes)}


def router(pieces: GatewayContext) -> APIRouter:
    routes = APIRouter(prefix="/api")
    limit = pieces.max_body_bytes

    @routes.post("/generate", **takes(ollama_schema.GenerateBody, stream=NDJSON))
    async def generate(http: Request) -> Response:
        body = await read(http, ollama_schema.GenerateBody, limit)
        if not body.asks:
            return await _load(pieces, http, body, _as_response)
        model = (await pieces.models.get(body.model, "generate")).name
        work = body.to_request(model, pieces.draw_seed())
        return await _answer(pieces, http, body, work, _as_response)

    @routes.post("/chat", **takes(ollama_schema.ChatBody, stream=NDJSON))
    async def chat(http: Request) -> Response:
        body = await read(http, ollama_schema.ChatBody, limit)
        if not body.messages:
            return await _load(pieces, http, body, _as_message)
        model = (await pieces.models.get(body.model, "generate")).name
        work = body.to_request(model, pieces.draw_seed())
        return await _answer(pieces, http, body, work, _as_message)

    @routes.post("/embed", **takes(ollama_schema.EmbedBody))
    async def embed_(http: Request) -> Response:
        started_at = pieces.clock.now()
        body = await read(http, ollama_schema.EmbedBody, limit)
        work = body.to_request((await pieces.models.get(body.model, "embed")).name)
        if not work.texts:  # as with an empty prompt
            await _load_or_unload(pieces, http, body, work.model)
        vectors = await embed(pieces, work, http, DIALECT)
        answer: dict[str, Any] = {"model": body.model, "embeddings": vectors.rows(body.dimensions or None)}
        answer |= {
            "total_duration": _ns(pieces.clock.now() - started_at),
            "load_duration": _ns(vectors.load_s),
        }
        return JSONResponse(answer | {"prompt_eval_count": vectors.prompt_tokens})

    @routes.post("/embeddings", **takes(ollama_schema.EmbeddingsBody))
    async def embeddings(http: Request) -> Response:
        body = await read(http, ollama_schema.EmbeddingsBody, limit)
        work = body.to_request((await pieces.models.get(body.model, "embed")).name)
        if not work.texts:
            await _load_or_unload(pieces, http, body, work.model)
        rows = (await embed(pieces, work, http, DIALECT)).rows()
        return JSONResponse({"embedding": rows[0] if rows else []})

    return routes


async def _load(
    pieces: GatewayContext, http: Request, body: ollama_schema.ModelBody, wording: Wording
) -> Response:
    """An empty prompt loads a model of any kind; with `keep_alive` 0, as `ollama stop` has it, unloads it."""
    await _load_or_unload(pieces, http, body, (await pieces.models.get(body.model)).name)
    reason = "unload" if body.unloads else "load"
    return JSONResponse(_head(body.model) | wording(AnswerPart()) | {"done": True, "done_reason": reason})


async def _load_or_unload(
    pieces: GatewayContext, http: Request, body: ollama_schema.ModelBody, model: str
) -> None:
    work = UnloadRequest(model) if body.unloads else LoadRequest(model, body.keep_alive_s)
    ticket = pieces.submit(work, http, DIALECT)
    await unless_left(http, ticket, ticket.last())


async def _answer(
    pieces: GatewayContext,
    http: Request,
    body: ollama_schema.ModelBody,
    work: GenerationRequest,
    wording: Wording,
) -> Response:
    ticket = pieces.submit(work, http, DIALECT)
    if body.stream is False:
        return await unless_left(http, ticket, _whole(pieces, ticket, body.model, wording))
    first = await unless_left(http, ticket, ticket.next())
    return StreamedAnswer(ticket, _lines(pieces, ticket, first, body.model, wording), NDJSON)


async def _whole(pieces: GatewayContext, ticket: Ticket, model: str, wording: Wording) -> Response:
    part = await whole(ticket)
    assert part.done
    last = _head(model) | wording(part) | _end(pieces, ticket, part.done)
    return JSONResponse(last, headers={"x-request-id": ticket.id})


async def _lines(
    pieces: GatewayContext, ticket: Ticket, first: Any, model: str, wording: Wording
) -> AsyncIterator[str]:
    try:
        async for _, part in Tickets([ticket]).parts(first):
            if part:
                yield _line(_head(model) | wording(part) | {"done": False})
            if part.done:
                yield _line(_head(model) | wording(AnswerPart()) | _end(pieces, ticket, part.done))
    except errors.GatewayError as error:  # too late for a status
        yield errors.line(error)


def _head(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _end(pieces: GatewayContext, ticket: Ticket, done: protocol.Done) -> dict[str, Any]:
    """Counts and durations in nanoseconds. None is ever 0: clients divide by them."""
    usage = done.usage
    now = pieces.clock.now()
    decode_s = usage.decode_s
    if ticket.crashes and ticket.first_token_at is not None:  # that engine knows its own share only
        decode_s = now - ticket.first_token_at
    return {
        "done": True,
        "done_reason": "stop" if done.reason == "tool_calls" else done.reason,
        "total_duration": _ns(now - ticket.submitted_at),
        "load_duration": _ns(usage.load_s),
        "prompt_eval_count": max(1, usage.prompt_tokens),
        "prompt_eval_duration": _ns(usage.prefill_s),
        "eval_count": max(1, usage.completion_tokens),
        "eval_duration": _ns(decode_s),
    }


def _ns(seconds: float) -> int:
    return max(1, int(seconds * 1e9))


def _line(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n"
