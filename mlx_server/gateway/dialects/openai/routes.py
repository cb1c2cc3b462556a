"""OpenAI's API: /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway import errors
from mlx_server.gateway.dialects.answer_parts import AnswerPart, Tickets
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read
from mlx_server.gateway.dialects.context import GatewayContext, Vectors, embed
from mlx_server.gateway.dialects.openai import schema as openai_schema
from mlx_server.gateway.dialects.openai.render import CHAT, COMPLETION, Wording, choice, data, usage
from mlx_server.gateway.dialects.streaming import SSE, StreamedAnswer, unless_left
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.ticket import Ticket, TicketEvent
from mlx_server.model_store import ModelEntry

DIALECT = "openai"
FLOAT32_BYTES = 4


def router(pieces: GatewayContext) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    limit = pieces.max_body_bytes

    @routes.get("/models")
    async def models(http: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(e) for e in await pieces.models.all()]})

    @routes.get("/models/{name:path}", responses={404: {}})
    async def model(http: Request, name: str) -> Response:
        return JSONResponse(_model(await pieces.models.get(name)))

    @routes.post("/chat/completions", **takes(openai_schema.ChatBody, stream=SSE))
    async def chat(http: Request) -> Response:
        body = await read(http, openai_schema.ChatBody, limit)
        name = (await pieces.models.get(body.model, "generate")).name
        return await _answer(pieces, http, body, body.to_requests(name, pieces.draw_seed()), CHAT)

    @routes.post("/completions", **takes(openai_schema.CompletionBody, stream=SSE))
    async def completions(http: Request) -> Response:
        body = await read(http, openai_schema.CompletionBody, limit)
        name = (await pieces.models.get(body.model, "generate")).name
        return await _answer(pieces, http, body, body.to_requests(name, pieces.draw_seed()), COMPLETION)

    @routes.post("/embeddings", **takes(openai_schema.EmbeddingsBody))
    async def embeddings(http: Request) -> Response:
        body = await read(http, openai_schema.EmbeddingsBody, limit)
        work = body.to_request((await pieces.models.get(body.model, "embed")).name)
        vectors = await embed(pieces, work, http, DIALECT)
        short = body.dimensions
        rows: list[Any] = vectors.rows(short) if short or body.encoding_format != "base64" else []
        if body.encoding_format == "base64":
            rows = [protocol.pack_vectors([row]) for row in rows] if short else _base64_rows(vectors)
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": vectors.prompt_tokens, "total_tokens": vectors.prompt_tokens}
        return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})

    return routes


async def _answer(
    pieces: GatewayContext,
    http: Request,
    body: openai_schema.TextBody,
    works: Sequence[GenerationRequest],
    wording: Wording,
) -> Response:
    for work in works:
        body.echoed(work)  # what cannot be echoed is refused before anything is begun
    tickets = _submit(pieces, http, body, works)
    created = int(pieces.clock.wall())
    head = {"id": f"{wording.prefix}{tickets.id}", "created": created, "model": body.model}
    if not body.stream:
        return await unless_left(http, tickets, _whole(tickets, head, wording, body))
    first = await unless_left(http, tickets, tickets.each[0].next())
    return StreamedAnswer(
        tickets, _lines(tickets, first, head | {"object": wording.chunk}, wording, body), SSE
    )


def _submit(
    pieces: GatewayContext, http: Request, body: openai_schema.TextBody, works: Sequence[GenerationRequest]
) -> Tickets:
    """All of them or none: a queue that takes only some refuses the whole. Raises GatewayError."""
    most = pieces.config.mlx.max_running + pieces.config.mlx.max_queued
    if len(works) > most:  # no later time would do, so it is no 503
        message = f"{len(works)} answers are asked for at once, and this server takes {most}: ask for fewer"
        raise errors.BadRequest("invalid_request", message, answers=len(works), most=most)
    tickets: list[Ticket] = []
    try:
        for work in works:
            tickets.append(pieces.submit(work, http, DIALECT, body.user))
    except errors.GatewayError:
        for ticket in tickets:
            ticket.cancel()
        raise
    return Tickets(tickets)


async def _whole(
    tickets: Tickets, head: dict[str, Any], wording: Wording, body: openai_schema.TextBody
) -> Response:
    wholes = [
        replace(part, text=body.echoed(ticket.request) + part.text)
        for ticket, part in zip(tickets.each, await tickets.wholes(), strict=True)
    ]
    dones = [part.done for part in wholes if part.done]
    choices = [
        choice(at, wording.choice(part), done.reason, _logprobs(part, wording))
        for at, (part, done) in enumerate(zip(wholes, dones, strict=True))
    ]
    answer = head | {"object": wording.whole, "choices": choices, "usage": usage(dones, body.n or 1)}
    return JSONResponse(answer, headers={"x-request-id": tickets.id})


async def _lines(
    tickets: Tickets, first: TicketEvent, head: dict[str, Any], wording: Wording, body: openai_schema.TextBody
) -> AsyncIterator[str]:
    no_usage = {"usage": None} if body.include_usage else {}
    dones: dict[int, protocol.Done] = {}

    def chunk(at: int, content: dict[str, Any], reason: str | None, logprobs: Any = None) -> str:
        return data(head | {"choices": [choice(at, content, reason, logprobs)]} | no_usage)

    try:
        for at in range(len(tickets.each)) if wording.first is not None else ():
            yield chunk(at, wording.first or {}, None)
        for at, ticket in enumerate(tickets.each):
            if prompt := body.echoed(ticket.request):
                yield chunk(at, wording.delta(AnswerPart(prompt)), None)
        async for at, part in tickets.parts(first):
            if part:
                yield chunk(at, wording.delta(part), None, _logprobs(part, wording))
            if part.done:
                dones[at] = part.done
                yield chunk(at, wording.last, part.done.reason)
        if body.include_usage:
            counts = usage([dones[at] for at in sorted(dones)], body.n or 1)
            yield data(head | {"choices": [], "usage": counts})
    except errors.GatewayError as error:  # too late for a status
        yield data(errors.openai_body(error))
    yield "data: [DONE]\n\n"


def _logprobs(part: AnswerPart, wording: Wording) -> dict[str, Any] | None:
    return wording.logprobs(part.chances) if part.chances else None


def _model(entry: ModelEntry) -> dict[str, Any]:
    return {"id": entry.name, "object": "model", "created": int(entry.modified), "owned_by": "vestal"}


def _base64_rows(vectors: Vectors) -> list[str]:
    size = vectors.dim * FLOAT32_BYTES
    raw = [base64.b64decode(block) for block in vectors.blocks]
    rows = [block[start : start + size] for block in raw for start in range(0, len(block), size)]
    return [base64.b64encode(row).decode("ascii") for row in rows]
