"""llama-server's routes: /tokenize, /detokenize, /apply-template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.chat.images import image_reader, with_images
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.dialects.llama_cpp import DIALECT
from mlx_server.gateway.dialects.llama_cpp.schema import (
    ApplyTemplateBody,
    DetokenizeBody,
    TokenBody,
    TokenizeBody,
)
from mlx_server.gateway.dialects.streaming import cancel_on_disconnect
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.errors import BadRequest, listed
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.sendable import SendableRequest, sendable
from mlx_server.model_store import ModelEntry

NOTHING = protocol.PromptReport((), "")


def router(context: GatewayContext) -> APIRouter:
    """Return llama-server's routes."""
    routes = APIRouter()

    @routes.post("/tokenize", **takes(TokenizeBody))
    async def tokenize(http: Request) -> Response:
        body = await read_body(http, TokenizeBody, context.max_body_bytes)
        found, headers = await _report(context, http, body)
        tokens: list[Any] = list(found.ids)
        if body.with_pieces:
            pieces = zip(found.ids, found.pieces, strict=True)
            tokens = [{"id": token, "piece": piece} for token, piece in pieces]
        return JsonResponse({"tokens": tokens}, headers=headers)

    @routes.post("/detokenize", **takes(DetokenizeBody))
    async def detokenize(http: Request) -> Response:
        body = await read_body(http, DetokenizeBody, context.max_body_bytes)
        found, headers = await _report(context, http, body)
        return JsonResponse({"content": found.text}, headers=headers)

    @routes.post("/apply-template", **takes(ApplyTemplateBody))
    async def apply_template(http: Request) -> Response:
        body = await read_body(http, ApplyTemplateBody, context.max_body_bytes)
        found, headers = await _report(context, http, body)
        return JsonResponse({"prompt": found.text}, headers=headers)

    return routes


async def _report(
    context: GatewayContext, http: Request, body: TokenBody
) -> tuple[protocol.PromptReport, Mapping[str, str]]:
    """Return the engine's report on the prompt, which has the prompt's tokens and text, and the headers of
    the response. Raises GatewayError if the request is refused or fails, and ClientDisconnected if the client
    leaves.
    """
    model = await _model(context, body.model)
    if body.is_empty:
        return NOTHING, {}
    asked = await with_images(context, http, model, body)
    images = image_reader(context, model, asked.model or model.name)

    def translate() -> SendableRequest:
        return sendable(with_preset(model, asked, asked.to_request(model.name, images)))

    request = await translated(http, translate)
    ticket = context.submit(request, http, DIALECT)
    done = await cancel_on_disconnect(http, ticket, ticket.last())
    assert isinstance(done, protocol.Done) and done.prompt is not None
    return done.prompt, request_id_headers(ticket.id)


async def _model(context: GatewayContext, name: str | None) -> ModelEntry:
    """Return the model that the body names. Without a name, return the only installed model that generates
    text. Raises GatewayError if there is no such model, or if a name is needed because there are several.
    """
    if name is not None:
        return await context.installed_models.get(name, "generate")
    chat_models = [entry for entry in await context.installed_models.all() if entry.kind == "generate"]
    if len(chat_models) != 1:
        names = listed([entry.name for entry in chat_models])
        raise BadRequest("invalid_request", f"model: is missing; there are: {names}")
    return chat_models[0]
