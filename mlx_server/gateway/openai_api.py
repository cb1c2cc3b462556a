"""OpenAI's API: /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway import errors, openai_schema
from mlx_server.gateway.answering import SSE, StreamedAnswer, unless_left
from mlx_server.gateway.bodies import read
from mlx_server.gateway.generation_request import GenerationRequest
from mlx_server.gateway.pieces import Pieces, Vectors, embed
from mlx_server.gateway.ticket import Ticket
from mlx_server.model_store import ModelEntry

DIALECT = "openai"
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Wording:
    """How a route words its answers: the object's names and where the text goes."""

    prefix: str
    whole: str
    chunk: str
    choice: Callable[[str], dict[str, Any]]
    first: dict[str, Any] | None
    delta: Callable[[str], dict[str, Any]]
    last: dict[str, Any]


CHAT = Wording(
    prefix="chatcmpl-",
    whole="chat.completion",
    chunk="chat.completion.chunk",
    choice=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    first={"delta": {"role": "assistant", "content": ""}},
    delta=lambda text: {"delta": {"content": text}},
    last={"delta": {}},
)
COMPLETION = Wording(
    prefix="cmpl-",
    whole="text_completion",
    chunk="text_completion",
    choice=lambda text: {"text": text},
    first=None,
    delta=lambda text: {"text": text},
    last={"text": ""},
)


def router(pieces: Pieces) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    limit = pieces.max_body_bytes

    @routes.get("/models")
    async def models(http: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(e) for e in await pieces.models.all()]})

    @routes.get("/models/{name:path}")
    async def model(http: Request, name: str) -> Response:
        return JSONResponse(_model(await pieces.models.get(name)))

    @routes.post("/chat/completions")
    async def chat(http: Request) -> Response:
        body = await read(http, openai_schema.ChatBody, limit)
        name = (await pieces.models.get(body.model, "generate")).name
        return await _answer(pieces, http, body, body.to_request(name, pieces.draw_seed()), CHAT)

    @routes.post("/completions")
    async def completions(http: Request) -> Response:
        body = await read(http, openai_schema.CompletionBody, limit)
        name = (await pieces.models.get(body.model, "generate")).name
        return await _answer(pieces, http, body, body.to_request(name, pieces.draw_seed()), COMPLETION)

    @routes.post("/embeddings")
    async def embeddings(http: Request) -> Response:
        body = await read(http, openai_schema.EmbeddingsBody, limit)
        work = body.to_request((await pieces.models.get(body.model, "embed")).name)
        vectors = await embed(pieces, work, http, DIALECT)
        rows = _base64_rows(vectors) if body.encoding_format == "base64" else vectors.rows()
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": vectors.prompt_tokens, "total_tokens": vectors.prompt_tokens}
        return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})

    return routes


async def _answer(
    pieces: Pieces,
    http: Request,
    body: openai_schema.TextBody,
    work: GenerationRequest,
    wording: Wording,
) -> Response:
    ticket = pieces.submit(work, http, DIALECT, body.user)
    created = int(pieces.clock.wall())
    head = {"id": f"{wording.prefix}{ticket.id}", "created": created, "model": body.model}
    if not body.stream:
        return await unless_left(http, ticket, _whole(ticket, head, wording))
    first = await unless_left(http, ticket, ticket.next())
    lines = _lines(ticket, first, head | {"object": wording.chunk}, wording, body.include_usage)
    return StreamedAnswer(ticket, lines, SSE)


async def _whole(ticket: Ticket, head: dict[str, Any], wording: Wording) -> Response:
    parts: list[str] = []
    answer: dict[str, Any] = {}
    async for event in ticket.events():
        assert isinstance(event, protocol.Token | protocol.Done)
        parts.append(event.text)
        if isinstance(event, protocol.Done):
            choice = _choice(wording.choice("".join(parts)), event.reason)
            usage = _usage(event.usage)
            answer = head | {"object": wording.whole, "choices": [choice], "usage": usage}
    return JSONResponse(answer, headers={"x-request-id": ticket.id})


async def _lines(
    ticket: Ticket, first: Any, head: dict[str, Any], wording: Wording, include_usage: bool
) -> AsyncIterator[str]:
    no_usage = {"usage": None} if include_usage else {}
    try:
        if wording.first is not None:
            yield _data(head | {"choices": [_choice(wording.first, None)]} | no_usage)
        async for event in ticket.events(first):
            assert isinstance(event, protocol.Token | protocol.Done)
            if event.text:
                yield _data(head | {"choices": [_choice(wording.delta(event.text), None)]} | no_usage)
            if isinstance(event, protocol.Done):
                yield _data(head | {"choices": [_choice(wording.last, event.reason)]} | no_usage)
                if include_usage:
                    yield _data(head | {"choices": [], "usage": _usage(event.usage)})
    except errors.GatewayError as error:  # too late for a status
        yield _data(errors.openai_body(error))
    yield "data: [DONE]\n\n"


def _choice(content: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, **content, "logprobs": None, "finish_reason": reason}


def _usage(usage: protocol.Usage) -> dict[str, Any]:
    total = usage.prompt_tokens + usage.completion_tokens
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return counts | {"total_tokens": total}


def _model(entry: ModelEntry) -> dict[str, Any]:
    return {"id": entry.name, "object": "model", "created": int(entry.modified), "owned_by": "vestal"}


def _base64_rows(vectors: Vectors) -> list[str]:
    size = vectors.dim * FLOAT32_BYTES
    raw = [base64.b64decode(block) for block in vectors.blocks]
    rows = [block[start : start + size] for block in raw for start in range(0, len(block), size)]
    return [base64.b64encode(row).decode("ascii") for row in rows]


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
