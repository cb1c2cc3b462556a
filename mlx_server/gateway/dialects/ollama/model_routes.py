"""Ollama's routes for models: /api/tags, /api/show, /api/ps, /api/version, /api/pull, /api/delete."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama import DIALECT, making_routes, render_models
from mlx_server.gateway.dialects.ollama.model_bodies import PullBody, ShowBody
from mlx_server.gateway.dialects.ollama.pull import Pulls
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.dialects.streaming import NDJSON, cancel_on_disconnect
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.memory_fit import MemoryFit
from mlx_server.gateway.requests.model_requests import UnloadRequest
from mlx_server.gateway.requests.sendable import sendable

OLLAMA_API = "0.32.15"
"""The release of Ollama whose API this server follows. Clients compare it with the release that they need."""


def router(context: GatewayContext) -> APIRouter:
    """Return the routes of this module and those of `making_routes`."""
    routes = APIRouter()
    pulls, memory_fit = Pulls(context), MemoryFit(context.config)
    routes.include_router(making_routes.router(context, pulls))

    @routes.head("/", include_in_schema=False)
    @routes.get("/", response_class=PlainTextResponse)
    async def greet(http: Request) -> Response:
        return PlainTextResponse("Ollama is running")  # some clients check for this text

    @routes.head("/api/version", include_in_schema=False)
    @routes.get("/api/version")
    async def version(http: Request) -> Response:
        return JsonResponse({"version": OLLAMA_API, "server": "vestal"})

    @routes.head("/api/tags", include_in_schema=False)
    @routes.get("/api/tags")
    async def tags(http: Request) -> Response:
        newest_first = sorted(await context.installed_models.all(), key=lambda entry: -entry.modified)
        fits = await memory_fit.of(newest_first, context.dispatcher.loaded_models.memory_limit_bytes)
        listed = [render_models.tag(entry, fits.get(entry.name)) for entry in newest_first]
        return JsonResponse({"models": listed})

    @routes.get("/api/ps")
    async def ps(http: Request) -> Response:
        entries = {entry.name: entry for entry in await context.installed_models.all()}
        wall_s = context.clock.wall()
        running = [
            render_models.running(report, entries.get(report.model), wall_s)
            for report in sorted(context.dispatcher.loaded_models.reports, key=render_models.expires_last)
        ]
        return JsonResponse({"models": running})

    @routes.post("/api/show", **takes(ShowBody))
    async def show(http: Request) -> Response:
        body = await read_body(http, ShowBody, context.max_body_bytes)
        model = await context.installed_models.get(body.model)
        return JsonResponse(render_models.shown(model, body.model, with_tensors=bool(body.verbose)))

    @routes.post("/api/pull", **takes(PullBody, stream=NDJSON))
    async def pull(http: Request) -> Response:
        return await pulls.answer(http, await read_body(http, PullBody, context.max_body_bytes))

    @routes.delete("/api/delete", response_class=Response, **takes(ModelBody))
    async def delete(http: Request) -> Response:
        body = await read_body(http, ModelBody, context.max_body_bytes)
        name = await context.installed_models.installed_name(body.model)
        if name in context.dispatcher.loaded_models.names:
            ticket = context.submit(sendable(UnloadRequest(name)), http, DIALECT)
            await cancel_on_disconnect(http, ticket, ticket.last())
        await context.installed_models.remove(name)
        return Response(status_code=200)

    return routes
