"""Ollama's API for models: /api/tags, /api/show, /api/ps, /api/version, /api/pull, /api/delete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mlx_server import protocol
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama import pull as pulling
from mlx_server.gateway.dialects.ollama.routes import DIALECT
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.dialects.streaming import NDJSON, unless_left
from mlx_server.gateway.requests.model_requests import UnloadRequest
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files.model_folder import chat_template
from vestal.config import canonical

OLLAMA_API = "0.12.6"
"""The release of Ollama whose API this follows: clients compare it with the one they need."""
FOR_EVER = timedelta(days=365 * 100)


def router(pieces: GatewayContext) -> APIRouter:
    routes = APIRouter()

    @routes.head("/", include_in_schema=False)
    @routes.get("/", response_class=PlainTextResponse)
    async def greet(http: Request) -> Response:
        return PlainTextResponse("Vestal is running; it speaks Ollama's API and OpenAI's")

    @routes.head("/api/version", include_in_schema=False)
    @routes.get("/api/version")
    async def version(http: Request) -> Response:
        return JSONResponse({"version": OLLAMA_API, "server": "vestal"})

    @routes.head("/api/tags", include_in_schema=False)
    @routes.get("/api/tags")
    async def tags(http: Request) -> Response:
        return JSONResponse({"models": [_tag(entry) for entry in await pieces.models.all()]})

    @routes.get("/api/ps")
    async def ps(http: Request) -> Response:
        entries = {entry.name: entry for entry in await pieces.models.all()}
        held = pieces.dispatcher.loaded_models.reports
        now = datetime.now(UTC)
        return JSONResponse({"models": [_running(model, entries.get(model.model), now) for model in held]})

    @routes.post("/api/show", **takes(ModelBody))
    async def show(http: Request) -> Response:
        body = await read(http, ModelBody, pieces.max_body_bytes)
        return JSONResponse(_shown(await pieces.models.get(body.model)))

    @routes.post("/api/pull", **takes(ModelBody, stream=NDJSON))
    async def pull(http: Request) -> Response:
        body = await read(http, ModelBody, pieces.max_body_bytes)
        return await pulling.answer(pieces, body)

    @routes.delete("/api/delete", response_class=Response, **takes(ModelBody))
    async def delete(http: Request) -> Response:
        body = await read(http, ModelBody, pieces.max_body_bytes)
        name = canonical(body.model)
        if name in pieces.dispatcher.loaded_models.names:
            ticket = pieces.submit(UnloadRequest(name), http, DIALECT)
            await unless_left(http, ticket, ticket.last())
        await pieces.models.remove(body.model)
        return Response(status_code=200)

    return routes


def _tag(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": _time(entry.modified),
        "size": entry.bytes,
        "digest": entry.digest,
        "details": _details(entry),
    }


def _details(entry: ModelEntry) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": entry.format,
        "family": entry.family,
        "families": [entry.family],
        "parameter_size": entry.parameter_size,
        "quantization_level": entry.quantization,
    }


def _running(model: protocol.LoadedModelReport, entry: ModelEntry | None, now: datetime) -> dict[str, Any]:
    held = model.bytes + model.kv_bytes
    left = FOR_EVER if model.expires_in_s is None else timedelta(seconds=model.expires_in_s)
    return {
        "name": model.model,
        "model": model.model,
        "size": held,
        "size_vram": held if model.on_gpu else 0,  # clients take the share for "how much runs on the GPU"
        "digest": entry.digest if entry else "",
        "details": _details(entry) if entry else {},
        "expires_at": (now + left).isoformat().replace("+00:00", "Z"),
        "context_length": model.context_tokens,
    }


def _shown(entry: ModelEntry) -> dict[str, Any]:
    family = entry.family
    sizes = {f"{family}.context_length": entry.context_tokens, "general.architecture": family}
    template = chat_template(entry.path) if entry.kind == "generate" else ""
    return {
        "modelfile": f"# made by Vestal\nFROM {entry.path}\n",
        "parameters": "",
        "template": template,
        "license": "",
        "details": _details(entry),
        "model_info": {**sizes, "general.file_bytes": entry.bytes},
        "capabilities": _capabilities(entry, template),
        "modified_at": _time(entry.modified),
    }


def _capabilities(entry: ModelEntry, template: str) -> list[str]:
    """What clients look at before they offer tools or ask for thoughts."""
    if entry.kind == "embed":
        return ["embedding"]
    thinks = "<think>" in template and "</think>" in template
    return ["completion", *(["tools"] if template else []), *(["thinking"] if thinks else [])]


def _time(since_epoch: float) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).isoformat().replace("+00:00", "Z")
