"""Anthropic's routes: /v1/messages, and /v1/messages/count_tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.dialects.anthropic import DIALECT, render
from mlx_server.gateway.dialects.anthropic.schema import CountBody, MessagesBody
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.chat.images import image_reader, with_images
from mlx_server.gateway.dialects.chat.tool_choice import CallRules
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.dialects.streaming import (
    SSE,
    cancel_on_disconnect,
    stream_answers,
)
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.sendable import SendableRequest, sendable


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of Anthropic's API."""
    routes = APIRouter(prefix="/v1")

    @routes.post("/messages", **takes(MessagesBody, stream=SSE))
    async def messages(http: Request) -> Response:
        asked = await _read(context, http)
        answers = context.generate([asked.request], http, DIALECT, asked.user)
        if asked.stream:
            return await stream_answers(
                http,
                answers,
                lambda: render.MessageEvents(
                    answers.id, asked.model, answers.prompt_tokens or 0, asked.rules
                ),
                SSE,
            )
        ((answer, done),) = await cancel_on_disconnect(http, answers, answers.whole())
        message = render.whole_message(answers.id, asked.model, answer, done, asked.rules)
        return JsonResponse(message, headers=request_id_headers(answers.id))

    @routes.post("/messages/count_tokens", **takes(CountBody))
    async def count_tokens(http: Request) -> Response:
        ticket = context.submit(await _read_count(context, http), http, DIALECT)
        done = await cancel_on_disconnect(http, ticket, ticket.last())
        assert isinstance(done, protocol.Done)
        counted = {"input_tokens": done.usage.prompt_tokens}
        return JsonResponse(counted, headers=request_id_headers(ticket.id))

    return routes


@dataclass(frozen=True)
class _Asked:
    """The values of a body that are needed while its answer is generated. `model` is the name as the client
    wrote it, and `user` the end user that the body names. `request` is the generation request, encoded for
    the engine. `rules` say which tool calls of the answer are accepted. `skipped` holds, for the log, the
    types of the tools (key `tools`) and of the content blocks (key `parts`) that the model does not get.
    """

    model: str
    stream: bool
    user: str | None
    request: SendableRequest
    rules: CallRules
    skipped: dict[str, Sequence[str]]


async def _read(context: GatewayContext, http: Request) -> _Asked:
    given = await read_body(http, MessagesBody, context.max_body_bytes)
    model = await context.installed_models.get(given.model, "generate")
    seed = context.draw_seed(http)
    body = await with_images(context, http, model, given)
    images = image_reader(context, model, body.model)

    def translate() -> _Asked:
        request = sendable(with_preset(model, body, body.to_request(model.name, seed, images)))
        skipped = body.skipped(images)
        return _Asked(body.model, bool(body.stream), body.user, request, body.call_rules, skipped)

    asked = await translated(http, translate)
    context.report_skipped(DIALECT, asked.model, asked.skipped)
    return asked


async def _read_count(context: GatewayContext, http: Request) -> SendableRequest:
    given = await read_body(http, CountBody, context.max_body_bytes)
    model = await context.installed_models.get(given.model, "generate")
    body = await with_images(context, http, model, given)
    images = image_reader(context, model, body.model)
    return await translated(
        http, lambda: sendable(with_preset(model, body, body.to_count(model.name, images)))
    )
