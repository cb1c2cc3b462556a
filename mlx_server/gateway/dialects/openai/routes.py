"""OpenAI's routes: /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.dialects.anthropic import models as anthropic_models
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.chat.images import image_reader, with_images
from mlx_server.gateway.dialects.chat.tool_choice import CallRules
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.embeddings import embed
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.dialects.openai import DIALECT, render, schema
from mlx_server.gateway.dialects.streaming import (
    SSE,
    cancel_on_disconnect,
    stream_answers,
)
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.sendable import SendableRequest, repeated, sendable
from mlx_server.model_store import ModelEntry

ANTHROPIC_VERSION = "anthropic-version"
"""Anthropic's clients send this header. They use the same paths, but expect Anthropic's form of an answer."""


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of OpenAI's API."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def models(http: Request) -> Response:
        entries = await context.installed_models.all()
        if ANTHROPIC_VERSION in http.headers:
            return JsonResponse(anthropic_models.models(entries, http.query_params))
        return JsonResponse({"object": "list", "data": [render.model(entry) for entry in entries]})

    @routes.get("/models/{name:path}", responses={404: {}})
    async def model(http: Request, name: str) -> Response:
        entry = await context.installed_models.get(name)
        made = anthropic_models.model if ANTHROPIC_VERSION in http.headers else render.model
        return JsonResponse(made(entry))

    @routes.post("/chat/completions", **takes(schema.ChatBody, stream=SSE))
    async def chat(http: Request) -> Response:
        return await _answer(context, http, schema.ChatBody, render.CHAT)

    @routes.post("/completions", **takes(schema.CompletionBody, stream=SSE))
    async def completions(http: Request) -> Response:
        return await _answer(context, http, schema.CompletionBody, render.COMPLETION)

    @routes.post("/embeddings", **takes(schema.EmbeddingsBody))
    async def embeddings(http: Request) -> Response:
        body = await read_body(http, schema.EmbeddingsBody, context.max_body_bytes)
        model = await context.installed_models.get(body.model, "embed")
        request = await translated(http, lambda: with_preset(model, body, body.to_request(model.name)))
        embedded = await embed(context, request, http, DIALECT)

        def answer() -> dict[str, Any]:
            rows: list[Any]
            if body.encoding_format != "base64":
                rows = embedded.json_rows(body.dimensions)
            elif body.dimensions:
                rows = [protocol.pack_vectors([row]) for row in embedded.rows(body.dimensions)]
            else:
                rows = render.base64_rows(embedded)
            return render.embeddings(body.model, rows, embedded.prompt_tokens)

        return await embedded.response(answer)

    return routes


@dataclass(frozen=True)
class _Asked:
    """The values of a body that are needed while its answers are generated.

    `model` is the name as the client wrote it, and `user` the end user that the body names. With
    `include_usage`, a stream ends with the token counts. `requests` holds one request for each answer, in
    groups of `answers_per_prompt` (OpenAI's `n`) for each prompt. `prefixes` holds for each of `requests` the
    text that its answer begins with. `rules` say which tool calls are accepted; with `uses_functions`, calls
    are written in the older form that goes with OpenAI's field `functions`. `skipped` holds, for the log, the
    types of the tools (key `tools`) and of the content parts (key `parts`) that the model does not get.
    """

    model: str
    stream: bool
    include_usage: bool
    user: str | None
    answers_per_prompt: int
    requests: list[SendableRequest]
    prefixes: list[str]
    rules: CallRules
    uses_functions: bool
    skipped: dict[str, list[str]]


async def _read(
    context: GatewayContext, http: Request, body_type: type[schema.ChatBody | schema.CompletionBody]
) -> _Asked:
    body = await read_body(http, body_type, context.max_body_bytes)
    model = await context.installed_models.get(body.model, "generate")
    context.check_answer_count(body.answer_count)
    seed = context.draw_seed(http)
    whole = await with_images(context, http, model, body)
    images = image_reader(context, model, body.model)
    asked = await translated(http, lambda: _translate(whole, model, seed, images))
    if sum(map(len, asked.prefixes)) > context.max_body_bytes:
        raise BadRequest("invalid_request", "echo: the prompts of all answers are too long; leave it out")
    context.report_skipped(DIALECT, asked.model, asked.skipped)
    return asked


def _translate(
    body: schema.ChatBody | schema.CompletionBody, model: ModelEntry, drawn_seed: int, images: ImageReader
) -> _Asked:
    times = body.n or 1
    requests = [with_preset(model, body, each) for each in body.to_requests(model.name, drawn_seed, images)]
    prefixes = [prefix for prefix in map(body.echo_of, requests) for _ in range(times)]
    return _Asked(
        body.model,
        bool(body.stream),
        body.include_usage,
        body.user,
        times,
        repeated([sendable(request) for request in requests], times),
        prefixes,
        body.call_rules,
        body.uses_functions,
        body.skipped(images),
    )


async def _answer(
    context: GatewayContext,
    http: Request,
    body_type: type[schema.ChatBody | schema.CompletionBody],
    shape: render.AnswerShape,
) -> Response:
    asked = await _read(context, http, body_type)
    created = int(context.created_s(http))
    answers = context.generate(asked.requests, http, DIALECT, asked.user)

    def renderer() -> render.AnswerChunks:
        return render.AnswerChunks(
            shape,
            answers.id,
            created,
            asked.model,
            prefixes=asked.prefixes,
            answers_per_prompt=asked.answers_per_prompt,
            include_usage=asked.include_usage,
            rules=asked.rules,
            uses_functions=asked.uses_functions,
        )

    if asked.stream:
        return await stream_answers(http, answers, renderer, SSE)
    wholes = await cancel_on_disconnect(http, answers, answers.whole())
    return JsonResponse(renderer().whole(wholes), headers=request_id_headers(answers.id))
