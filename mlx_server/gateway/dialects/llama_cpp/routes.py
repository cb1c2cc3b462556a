"""llama-server's routes: /tokenize, /detokenize, /apply-template."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.context import GatewayContext
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
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.model_store import ModelEntry

NOTHING = protocol.PromptReport((), "")


def router(context: GatewayContext) -> APIRouter:
    """Return llama-server's routes."""
    routes = APIRouter()

    @routes.post("/tokenize", **takes(TokenizeBody))
    async def tokenize(http: Request) -> Response:
        body = await read_body(http, TokenizeBody, context.max_body_bytes)
        found = await _report(context, http, body)
        if not body.with_pieces:
            return JsonResponse({"tokens": found.ids})
        pieces = zip(found.ids, found.pieces, strict=True)
        return JsonResponse({"tokens": [{"id": token, "piece": piece} for token, piece in pieces]})

    @routes.post("/detokenize", **takes(DetokenizeBody))
    async def detokenize(http: Request) -> Response:
        body = await read_body(http, DetokenizeBody, context.max_body_bytes)
        return JsonResponse({"content": (await _report(context, http, body)).text})

    @routes.post("/apply-template", **takes(ApplyTemplateBody))
    async def apply_template(http: Request) -> Response:
        body = await read_body(http, ApplyTemplateBody, context.max_body_bytes)
        return JsonResponse({"prompt": (await _report(context, http, body)).text})

    return routes


async def _report(context: GatewayContext, http: Request, body: TokenBody) -> protocol.PromptReport:
    """Return what the engine says of the prompt. Raises GatewayError, ClientDisconnected."""
    model = await _model(context, body.model)
    if body.is_empty:
        return NOTHING
    request = await translated(http, lambda: sendable(with_preset(model, body, body.to_request(model.name))))
    ticket = context.submit(request, http, DIALECT)
    done = await cancel_on_disconnect(http, ticket, ticket.last())
    assert isinstance(done, protocol.Done) and done.prompt is not None
    return done.prompt


async def _model(context: GatewayContext, name: str | None) -> ModelEntry:
    """Return the model that the body names, or the only one that generates text. Raises GatewayError."""
    if name is not None:
        return await context.installed_models.get(name, "generate")
    chat_models = [entry for entry in await context.installed_models.all() if entry.kind == "generate"]
    if len(chat_models) != 1:
        names = listed([entry.name for entry in chat_models])
        raise BadRequest("invalid_request", f"model: is missing; there are: {names}")
    return chat_models[0]
