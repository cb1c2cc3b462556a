"""The routes of upgrades: begin or join an upgrade, and read its report and the digests of what runs."""

import asyncio

from aiohttp import web

from host_agent.listener.context import ListenerContext
from vestal.web.aiohttp_adapter import read_object


class UpgradeRoutes:
    """Handles the routes under /upgrade."""

    def __init__(self, context: ListenerContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/upgrade", self.begin), web.get("/upgrade", self.report)]

    async def begin(self, request: web.Request) -> web.Response:
        """Begin to replace the processes that run older code or settings, or join the upgrade under way."""
        await read_object(request)
        begun = self._context.upgrades.begin()
        return web.json_response({"state": "started" if begun else "joined"}, status=202)

    async def report(self, request: web.Request) -> web.Response:
        """Return the report of the last upgrade, and the digest of the code and settings with which each
        running part of Vestal was started.
        """
        return web.json_response(await asyncio.to_thread(self._context.upgrades.as_json))
