"""OpenAI's routes: /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.embeddings import embed
from mlx_server.gateway.dialects.openai import DIALECT, render, schema
from mlx_server.gateway.dialects.streaming import SSE, cancel_on_disconnect, stream_answers


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of OpenAI's API."""
    routes = APIRouter(prefix="/v1")
    limit = context.max_body_bytes

    @routes.get("/models")
    async def models(http: Request) -> Response:
        entries = await context.installed_models.all()
        return JSONResponse({"object": "list", "data": [render.model(entry) for entry in entries]})

    @routes.get("/models/{name:path}", responses={404: {}})
    async def model(http: Request, name: str) -> Response:
        return JSONResponse(render.model(await context.installed_models.get(name)))

    @routes.post("/chat/completions", **takes(schema.ChatBody, stream=SSE))
    async def chat(http: Request) -> Response:
        body = await read_body(http, schema.ChatBody, limit)
        return await _answer(context, http, body, render.CHAT)

    @routes.post("/completions", **takes(schema.CompletionBody, stream=SSE))
    async def completions(http: Request) -> Response:
        body = await read_body(http, schema.CompletionBody, limit)
        return await _answer(context, http, body, render.COMPLETION)

    @routes.post("/embeddings", **takes(schema.EmbeddingsBody))
    async def embeddings(http: Request) -> Response:
        body = await read_body(http, schema.EmbeddingsBody, limit)
        request = body.to_request((await context.installed_models.get(body.model, "embed")).name)
        embedded = await embed(context, request, http, DIALECT)
        rows: list[Any]
        if body.encoding_format != "base64":
            rows = embedded.rows(body.dimensions)
        elif body.dimensions:
            rows = [protocol.pack_vectors([row]) for row in embedded.rows(body.dimensions)]
        else:
            rows = render.base64_rows(embedded)
        return JSONResponse(render.embeddings(body.model, rows, embedded.prompt_tokens))

    return routes


async def _answer(
    context: GatewayContext,
    http: Request,
    body: schema.ChatBody | schema.CompletionBody,
    shape: render.AnswerShape,
) -> Response:
    model = (await context.installed_models.get(body.model, "generate")).name
    requests = body.to_requests(model, context.draw_seed())
    prefixes = [body.echo_of(request) for request in requests]  # may raise, so before anything is submitted
    answers = context.generate(requests, http, DIALECT, body.user)
    renderer = render.AnswerChunks(
        shape,
        answers.id,
        int(context.clock.wall()),
        body.model,
        prefixes=prefixes,
        answers_per_prompt=body.n or 1,
        include_usage=body.include_usage,
    )
    if body.stream:
        return await stream_answers(http, answers, lambda _: renderer, SSE)
    wholes = await cancel_on_disconnect(http, answers, answers.whole())
    return JSONResponse(renderer.whole(wholes), headers={"x-request-id": answers.id})
