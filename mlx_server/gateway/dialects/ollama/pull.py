"""/api/pull: each model is downloaded once at a time, and all clients that ask for it follow that download.

As in Ollama, a client that leaves does not end the download for the others, and the last one to leave does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama.download import Download, Follower
from mlx_server.gateway.dialects.ollama.render import error_line, line
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.dialects.streaming import NDJSON, StreamedResponse, cancel_on_disconnect
from mlx_server.gateway.errors import GatewayError, NotFound, listed, quoted
from mlx_server.gateway.json_text import JsonResponse
from vestal.config import canonical

MAX_DOWNLOADS = 2
"""Downloads of different models that run at once. Each is a process of 40 MB or more; further ones wait."""

SUCCESS = {"status": "success"}


class Pulls:
    """The downloads that run or wait, at most one for each model of the configuration."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._downloads: dict[str, Download] = {}  # by the model's canonical name
        self._slots = asyncio.Semaphore(MAX_DOWNLOADS)
        self._numbers = itertools.count(1)

    async def answer(self, http: Request, body: ModelBody) -> Response:
        """Stream the progress, or return when the model is there. Raises NotFound where it has no source."""
        follower = self._follow(body.model)
        if body.stream is not False:
            return StreamedResponse(follower, _lines(follower), NDJSON)
        try:
            await cancel_on_disconnect(http, follower, follower.finished())
        finally:
            follower.cancel()
        return JsonResponse(SUCCESS)

    def _follow(self, model: str) -> Follower:
        """Return a new follower of the model's download, which is started where there is none."""
        config, name = self._context.config, canonical(model)
        source = config.model_source(model)
        if source is None:
            known = listed(sorted(canonical(name) for name in config.models))
            where = "in the configuration (`models:`)"
            message = f"Model {quoted(model)} has no source {where}; there are: {known}."
            raise NotFound("model_not_found", message, model=model)
        if name not in self._downloads:
            self._downloads[name] = Download(model, source.source, self._slots, self._ended)
        return Follower(f"pull-{next(self._numbers)}", self._downloads[name])

    def _ended(self, download: Download) -> None:
        self._downloads = {name: each for name, each in self._downloads.items() if each is not download}
        self._context.installed_models.changed()


async def _lines(follower: Follower) -> AsyncIterator[bytes]:
    try:
        async for step in follower.steps():
            yield line(step)
        yield line(SUCCESS)
    except GatewayError as error:
        yield error_line(error)
