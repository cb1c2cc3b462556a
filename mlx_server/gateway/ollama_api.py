"""Ollama's API for text and vectors: /api/generate, /api/chat, /api/embed, /api/embeddings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway import errors, ollama_schema
from mlx_server.gateway.answering import NDJSON, StreamedAnswer, unless_left
from mlx_server.gateway.bodies import read
from mlx_server.gateway.generation_request import GenerationRequest, LoadRequest, UnloadRequest
from mlx_server.gateway.pieces import Pieces, embed
from mlx_server.gateway.ticket import Ticket

DIALECT = "ollama"
Wording = Callable[[str], dict[str, Any]]
"""Puts a piece of text where the route's answers have it."""


def _as_response(text: str) -> dict[str, Any]:
    return {"response": text}


def _as_message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def router(pieces: Pieces) -> APIRouter:
    routes = APIRouter(prefix="/api")
    limit = pieces.max_body_bytes

    @routes.post("/generate")
    async def generate(http: Request) -> Response:
        body = await read(http, ollama_schema.GenerateBody, limit)
        model = (await pieces.models.get(body.model, "generate")).name
        if not body.prompt:
            return await _load(pieces, http, body, model, _as_response)
        work = body.to_request(model, pieces.draw_seed())
        return await _answer(pieces, http, body, work, _as_response)

    @routes.post("/chat")
    async def chat(http: Request) -> Response:
        body = await read(http, ollama_schema.ChatBody, limit)
        model = (await pieces.models.get(body.model, "generate")).name
        if not body.messages:
            return await _load(pieces, http, body, model, _as_message)
        work = body.to_request(model, pieces.draw_seed())
        return await _answer(pieces, http, body, work, _as_message)

    @routes.post("/embed")
    async def embed_(http: Request) -> Response:
        started_at = pieces.clock.now()
        body = await read(http, ollama_schema.EmbedBody, limit)
        work = body.to_request((await pieces.models.get(body.model, "embed")).name)
        if not work.texts:  # as with an empty prompt
            await _load_or_unload(pieces, http, body, work.model)
        vectors = await embed(pieces, work, http, DIALECT)
        answer: dict[str, Any] = {"model": body.model, "embeddings": vectors.rows()}
        answer |= {
            "total_duration": _ns(pieces.clock.now() - started_at),
            "load_duration": _ns(vectors.load_s),
        }
        return JSONResponse(answer | {"prompt_eval_count": vectors.prompt_tokens})

    @routes.post("/embeddings")
    async def embeddings(http: Request) -> Response:
        body = await read(http, ollama_schema.EmbeddingsBody, limit)
        work = body.to_request((await pieces.models.get(body.model, "embed")).name)
        rows = (await embed(pieces, work, http, DIALECT)).rows()
        return JSONResponse({"embedding": rows[0] if rows else []})

    return routes


async def _load(
    pieces: Pieces, http: Request, body: ollama_schema.ModelBody, model: str, wording: Wording
) -> Response:
    """An empty prompt loads the model; with `keep_alive` 0 it unloads it."""
    await _load_or_unload(pieces, http, body, model)
    reason = "unload" if body.unloads else "load"
    return JSONResponse(_head(body.model) | wording("") | {"done": True, "done_reason": reason})


async def _load_or_unload(pieces: Pieces, http: Request, body: ollama_schema.ModelBody, model: str) -> None:
    work = UnloadRequest(model) if body.unloads else LoadRequest(model, body.keep_alive_s)
    ticket = pieces.submit(work, http, DIALECT)
    await unless_left(http, ticket, ticket.last())


async def _answer(
    pieces: Pieces,
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


async def _whole(pieces: Pieces, ticket: Ticket, model: str, wording: Wording) -> Response:
    parts: list[str] = []
    async for event in ticket.events():
        assert isinstance(event, protocol.Token | protocol.Done)
        parts.append(event.text)
        if isinstance(event, protocol.Done):
            last = _head(model) | wording("".join(parts)) | _end(pieces, ticket, event)
    return JSONResponse(last, headers={"x-request-id": ticket.id})


async def _lines(
    pieces: Pieces, ticket: Ticket, first: Any, model: str, wording: Wording
) -> AsyncIterator[str]:
    try:
        async for event in ticket.events(first):
            assert isinstance(event, protocol.Token | protocol.Done)
            if event.text:
                yield _line(_head(model) | wording(event.text) | {"done": False})
            if isinstance(event, protocol.Done):
                yield _line(_head(model) | wording("") | _end(pieces, ticket, event))
    except errors.GatewayError as error:  # too late for a status
        yield errors.line(error)


def _head(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _end(pieces: Pieces, ticket: Ticket, done: protocol.Done) -> dict[str, Any]:
    """Counts and durations in nanoseconds. None is ever 0: clients divide by them."""
    usage = done.usage
    now = pieces.clock.now()
    decode_s = usage.decode_s
    if ticket.crashes and ticket.first_token_at is not None:  # that engine knows its own share only
        decode_s = now - ticket.first_token_at
    return {
        "done": True,
        "done_reason": done.reason,
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
