"""Ollama's routes that make models (/api/create, /api/copy, /api/blobs), and its routes for ollama.com, which
are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.body_reading import receive_stepwise
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama.creation import Creation, change_store, check_name
from mlx_server.gateway.dialects.ollama.model_bodies import CopyBody, CreateBody
from mlx_server.gateway.dialects.ollama.pull import SUCCESS, Pulls, lines_of
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.dialects.streaming import NDJSON, StreamedResponse, cancel_on_disconnect
from mlx_server.gateway.errors import BadRequest, NotFound, quoted
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.model_store import Preset, make
from mlx_server.model_store.blobs import Blobs, Upload

WRITTEN_AT_ONCE_BYTES = 1024 * 1024


def router(context: GatewayContext, pulls: Pulls) -> APIRouter:
    """Return the routes that make models, and the routes that concern the service ollama.com, such as uploads
    and accounts, which this server does not offer. `pulls` downloads a model that /api/create needs and that
    is not installed.
    """
    routes = APIRouter(prefix="/api")
    blobs = Blobs(context.config.models_dir)

    @routes.post("/create", **takes(CreateBody, stream=NDJSON))
    async def create(http: Request) -> Response:
        body = await read_body(http, CreateBody, context.max_body_bytes)
        creation = Creation(context, pulls, body)
        await creation.check()
        if body.stream is not False:
            return StreamedResponse(creation, lines_of(creation.steps()), NDJSON)
        await cancel_on_disconnect(http, creation, creation.finished())
        return JsonResponse(SUCCESS)

    @routes.post("/copy", response_class=Response, **takes(CopyBody))
    async def copy(http: Request) -> Response:
        body = await read_body(http, CopyBody, context.max_body_bytes)
        check_name("destination", body.destination)
        base = await context.installed_models.get(body.source)
        parent = base.preset.parent or base.name
        await change_store(
            context, partial(make, context.config, body.destination, base, Preset(parent=parent))
        )
        return Response(status_code=200)

    @routes.post("/push", **takes(ModelBody))
    async def push(http: Request) -> Response:
        await read_body(http, ModelBody, context.max_body_bytes)
        message = "Models are not pushed from here; upload the model's folder to a hub with `hf upload`."
        raise BadRequest("not_supported", message)

    @routes.post("/me", include_in_schema=False)
    async def account(http: Request) -> Response:
        """Refuse the request for the user's account, which `ollama push` sends before anything else."""
        message = "This server has no accounts of ollama.com: models are neither pushed to it nor run there."
        raise BadRequest("not_supported", message)

    @routes.get("/status")
    async def status(http: Request) -> Response:
        return JsonResponse({"cloud": {"disabled": True, "source": "config"}})

    @routes.head("/blobs/{digest}", include_in_schema=False)
    async def has_blob(http: Request, digest: str) -> Response:
        if await asyncio.to_thread(blobs.has, digest):
            return Response(status_code=200)
        raise NotFound("blob_not_found", f"blob {quoted(digest)} not found")

    @routes.post("/blobs/{digest}", include_in_schema=False)
    async def upload_blob(http: Request, digest: str) -> Response:
        if await asyncio.to_thread(blobs.has, digest):
            return Response(status_code=200)
        length = http.headers.get("content-length", "")
        size_bytes = int(length) if length.isdecimal() else 0
        upload = await asyncio.to_thread(blobs.upload, digest, size_bytes)
        try:
            await _write(upload, receive_stepwise(http))
        finally:
            await asyncio.to_thread(upload.close)
        return Response(status_code=201)

    return routes


async def _write(upload: Upload, parts: AsyncIterator[bytes]) -> None:
    """Write the received `parts` of a file to `upload`, and finish the upload. The writing runs in a thread,
    since the disk may be slow. Raises ModelStoreError if the file cannot be written or does not match its
    digest.
    """
    waiting = bytearray()
    async for part in parts:
        waiting += part
        if len(waiting) >= WRITTEN_AT_ONCE_BYTES:
            await asyncio.to_thread(upload.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(upload.write, bytes(waiting))
    await asyncio.to_thread(upload.finish)
