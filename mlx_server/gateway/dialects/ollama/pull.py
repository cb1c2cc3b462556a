"""Serve /api/pull. Each model is downloaded only once at a time, and all clients that ask for it follow that
download.

As in Ollama, a client that leaves does not end the download for the others; when the last one leaves, the
download ends.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama.download import KNOWN_NOWHERE, Download, Follower
from mlx_server.gateway.dialects.ollama.model_bodies import PullBody
from mlx_server.gateway.dialects.ollama.render import error_line, line
from mlx_server.gateway.dialects.streaming import NDJSON, StreamedResponse, cancel_on_disconnect
from mlx_server.gateway.errors import GatewayError, NotFound, listed, quoted
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.model_store.sources.by_name import source_of
from vestal.config import canonical, find_named, name_key

MAX_DOWNLOADS = 2
"""How many downloads run at once. Each is a process of 40 MB or more; further downloads wait."""

SUCCESS = {"status": "success"}


class Pulls:
    """Starts the downloads of models, at most one for each model, and lets clients follow them."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._downloads: dict[str, Download] = {}  # by the key of the model's name
        self._slots = asyncio.Semaphore(MAX_DOWNLOADS)
        self._numbers = itertools.count(1)

    async def answer(self, http: Request, body: PullBody) -> Response:
        """Return a stream of progress reports. If the body asks for no stream, wait until the model is
        installed instead.

        Raises NotFound if the model has no source. Without a stream, also raises GatewayError if the download
        fails.
        """
        await self.check(body.model)
        follower = self.follow(body.model, force=body.force)
        if body.stream is not False:
            return StreamedResponse(follower, lines_of(_with_success(follower)), NDJSON)
        try:
            await cancel_on_disconnect(http, follower, follower.finished())
        finally:
            follower.cancel()
        return JsonResponse(SUCCESS)

    async def check(self, model: str) -> None:
        """Raise NotFound with Ollama's error text if the model has no source and is not installed."""
        if source_of(self._context.config, model) is not None:
            return
        if find_named(model, await self._context.installed_models.all(), lambda entry: entry.name) is None:
            configured = listed(sorted(map(canonical, self._context.config.models)))
            message = (
                f"{KNOWN_NOWHERE} Model {quoted(model)} is neither in the configuration ({configured}) nor "
                "one of the names of Ollama's library that are known here; name a repository of the hub, "
                "such as mlx-community/Qwen3-4B-4bit."
            )
            raise NotFound("model_not_found", message, model=model)

    def follow(self, model: str, *, force: bool = False) -> Follower:
        """Return a new follower of the model's download. The download is started, unless one of this model is
        already running or waiting for its turn.

        With `force`, a download that this call starts fetches the model even if it does not fit into memory.
        """
        name = name_key(model)
        if name not in self._downloads:
            source = source_of(self._context.config, model)
            described = source.source if source else name
            self._downloads[name] = Download(model, described, self._slots, self._ended, force=force)
        return Follower(f"pull-{next(self._numbers)}", self._downloads[name])

    def _ended(self, download: Download) -> None:
        self._downloads = {name: each for name, each in self._downloads.items() if each is not download}
        self._context.installed_models.changed()


async def _with_success(follower: Follower) -> AsyncIterator[dict[str, Any]]:
    async for step in follower.steps():
        yield step
    yield SUCCESS


async def lines_of(steps: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield each of `steps`, which are progress reports, as a line of NDJSON. If `steps` raises a
    GatewayError, yield the error as the last line.
    """
    try:
        async for step in steps:
            yield line(step)
    except GatewayError as error:
        yield error_line(error)
