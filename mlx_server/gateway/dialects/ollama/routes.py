"""Ollama's routes for text and embeddings: /api/generate, /api/chat, /api/embed, /api/embeddings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.embeddings import embed
from mlx_server.gateway.dialects.ollama import DIALECT, model_routes, render, schema
from mlx_server.gateway.dialects.streaming import NDJSON, cancel_on_disconnect, stream_answers
from mlx_server.gateway.requests.model_requests import GenerationRequest, LoadRequest, UnloadRequest


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of Ollama's API."""
    routes = APIRouter()
    routes.include_router(_text_router(context))
    routes.include_router(model_routes.router(context))
    return routes


def _text_router(context: GatewayContext) -> APIRouter:
    routes = APIRouter(prefix="/api")
    limit = context.max_body_bytes

    @routes.post("/generate", **takes(schema.GenerateBody, stream=NDJSON))
    async def generate(http: Request) -> Response:
        body = await read_body(http, schema.GenerateBody, limit)
        if not body.has_prompt:
            return await _load(context, http, body, render.generate_content)
        model = (await context.installed_models.get(body.model, "generate")).name
        request = body.to_request(model, context.draw_seed())
        return await _answer(context, http, body, request, render.generate_content)

    @routes.post("/chat", **takes(schema.ChatBody, stream=NDJSON))
    async def chat(http: Request) -> Response:
        body = await read_body(http, schema.ChatBody, limit)
        if not body.messages:
            return await _load(context, http, body, render.chat_content)
        model = (await context.installed_models.get(body.model, "generate")).name
        request = body.to_request(model, context.draw_seed())
        return await _answer(context, http, body, request, render.chat_content)

    @routes.post("/embed", **takes(schema.EmbedBody))
    async def embed_(http: Request) -> Response:
        started_at = context.clock.now()
        body = await read_body(http, schema.EmbedBody, limit)
        request = body.to_request((await context.installed_models.get(body.model, "embed")).name)
        if not request.texts:
            await _load_or_unload(context, http, body, request.model)
        embeddings = await embed(context, request, http, DIALECT)
        answer: dict[str, Any] = {
            "model": body.model,
            "embeddings": embeddings.rows(body.dimensions or None),
            "total_duration": render.nanoseconds(context.clock.now() - started_at),
            "load_duration": render.nanoseconds(embeddings.load_s),
            "prompt_eval_count": embeddings.prompt_tokens,
        }
        return JSONResponse(answer)

    @routes.post("/embeddings", **takes(schema.EmbeddingsBody))
    async def embeddings(http: Request) -> Response:
        body = await read_body(http, schema.EmbeddingsBody, limit)
        request = body.to_request((await context.installed_models.get(body.model, "embed")).name)
        if not request.texts:
            await _load_or_unload(context, http, body, request.model)
        rows = (await embed(context, request, http, DIALECT)).rows()
        return JSONResponse({"embedding": rows[0] if rows else []})

    return routes


async def _load(
    context: GatewayContext, http: Request, body: schema.ModelBody, content: render.Content
) -> Response:
    """Answer a body without a prompt: load the model, or unload it with `keep_alive` 0 (`ollama stop`)."""
    await _load_or_unload(context, http, body, (await context.installed_models.get(body.model)).name)
    return JSONResponse(render.load_answer(body.model, context.clock.wall(), content, unloaded=body.unloads))


async def _load_or_unload(context: GatewayContext, http: Request, body: schema.ModelBody, model: str) -> None:
    request = UnloadRequest(model) if body.unloads else LoadRequest(model, body.keep_alive_s)
    ticket = context.submit(request, http, DIALECT)
    await cancel_on_disconnect(http, ticket, ticket.last())


async def _answer(
    context: GatewayContext,
    http: Request,
    body: schema.ModelBody,
    request: GenerationRequest,
    content: render.Content,
) -> Response:
    answers = context.generate([request], http, DIALECT)
    renderer = render.AnswerLines(body.model, answers.tickets[0], context.clock, content)
    if body.stream is not False:
        return await stream_answers(http, answers, lambda _: renderer, NDJSON)
    ((answer, done),) = await cancel_on_disconnect(http, answers, answers.whole())
    return JSONResponse(renderer.whole(answer, done), headers={"x-request-id": answers.id})
