"""Ollama's routes for text and embeddings: /api/generate, /api/chat, /api/embed, /api/embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.chat.images import image_reader
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.embeddings import Embeddings, embed
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.dialects.ollama import DIALECT, model_routes, render, schema
from mlx_server.gateway.dialects.streaming import (
    NDJSON,
    cancel_on_disconnect,
    stream_answers,
)
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.sendable import SendableRequest, sendable


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of Ollama's API: those of this module, and those for models."""
    routes = APIRouter()
    routes.include_router(_text_router(context))
    routes.include_router(model_routes.router(context))
    return routes


@dataclass(frozen=True)
class _Asked:
    """The parts of a body that are needed while its answer is generated.

    `model` is the name as the client wrote it. If the body has a prompt, `generates` is True and `request`
    generates an answer; else `request` loads the model, or unloads it if `unloads`. `arrived_at` is the
    monotonic time in seconds.
    """

    arrived_at: float
    model: str
    stream: bool
    generates: bool
    unloads: bool
    request: SendableRequest


def _text_router(context: GatewayContext) -> APIRouter:
    routes = APIRouter(prefix="/api")
    limit = context.max_body_bytes

    @routes.post("/generate", **takes(schema.GenerateBody, stream=NDJSON))
    async def generate(http: Request) -> Response:
        asked = await _read(context, http, schema.GenerateBody)
        return await _answer(context, http, asked, render.generate_content)

    @routes.post("/chat", **takes(schema.ChatBody, stream=NDJSON))
    async def chat(http: Request) -> Response:
        asked = await _read(context, http, schema.ChatBody)
        return await _answer(context, http, asked, render.chat_content)

    @routes.post("/embed", **takes(schema.EmbedBody))
    async def embed_(http: Request) -> Response:
        started_at = context.clock.now()
        body = await read_body(http, schema.EmbedBody, limit)
        embeddings, waited_s = await _embedded(context, http, body, started_at)
        return await embeddings.response(
            lambda: {
                "model": body.model,
                "embeddings": embeddings.json_rows(body.dimensions or None),
                "total_duration": render.nanoseconds(context.clock.now() - started_at),
                "load_duration": render.nanoseconds(waited_s + embeddings.load_s),
                "prompt_eval_count": embeddings.prompt_tokens,
            }
        )

    @routes.post("/embeddings", **takes(schema.EmbeddingsBody))
    async def embeddings_(http: Request) -> Response:
        body = await read_body(http, schema.EmbeddingsBody, limit)
        embeddings, _ = await _embedded(context, http, body, context.clock.now())
        vector = next(embeddings.rows(), [])
        return JsonResponse({"embedding": vector})

    return routes


async def _read(
    context: GatewayContext, http: Request, body_type: type[schema.GenerateBody | schema.ChatBody]
) -> _Asked:
    arrived_at = context.clock.now()
    body = await read_body(http, body_type, context.max_body_bytes)
    generates = body.has_prompt
    model = await context.installed_models.get(body.model, "generate" if generates else None)
    seed = context.draw_seed(http)
    images = image_reader(context, model, body.model)

    def translate() -> SendableRequest:
        if not generates:
            return sendable(with_preset(model, body, body.to_load_request(model.name)))
        return sendable(with_preset(model, body, body.to_request(model.name, seed, images)))

    request = await translated(http, translate)
    return _Asked(arrived_at, body.model, body.stream is not False, generates, body.unloads, request)


async def _embedded(
    context: GatewayContext,
    http: Request,
    body: schema.EmbedBody | schema.EmbeddingsBody,
    arrived_at: float,
) -> tuple[Embeddings, float]:
    """Return the vectors of the body's texts, and the seconds from `arrived_at` until the request goes to the
    engine. Without texts, the model is only loaded, and there are no vectors.
    """
    model = await context.installed_models.get(body.model, "embed")
    request = with_preset(model, body, body.to_request(model.name))
    if not request.texts:
        load = with_preset(model, body, body.to_load_request(model.name))
        await _submit_and_wait(context, http, sendable(load))
    waited_s = context.clock.now() - arrived_at
    return await embed(context, request, http, DIALECT), waited_s


async def _submit_and_wait(context: GatewayContext, http: Request, request: SendableRequest) -> None:
    ticket = context.submit(request, http, DIALECT)
    await cancel_on_disconnect(http, ticket, ticket.last())


async def _answer(context: GatewayContext, http: Request, asked: _Asked, content: render.Content) -> Response:
    if not asked.generates:  # `ollama stop` unloads a model in this way
        await _submit_and_wait(context, http, asked.request)
        wall_s = context.clock.wall()
        return JsonResponse(render.load_answer(asked.model, wall_s, content, unloaded=asked.unloads))
    answers = context.generate([asked.request], http, DIALECT)

    def renderer() -> render.AnswerLines:
        return render.AnswerLines(asked.model, answers.tickets[0], context.clock, content, asked.arrived_at)

    if asked.stream:
        return await stream_answers(http, answers, renderer, NDJSON)
    ((answer, done),) = await cancel_on_disconnect(http, answers, answers.whole())
    return JsonResponse(renderer().whole(answer, done), headers=request_id_headers(answers.id))
