"""The routes of upgrades. They begin an upgrade, or return the report of the last one together with the
digests of the code and settings with which the running processes were started.
"""

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
        """Begin to replace the processes that run older code or settings, unless such an upgrade is under
        way. Respond at once with status 202; `state` is "started", or "joined" if one was under way.
        """
        await read_object(request)
        begun = self._context.upgrades.begin()
        return web.json_response({"state": "started" if begun else "joined"}, status=202)

    async def report(self, request: web.Request) -> web.Response:
        """Return the report of the last upgrade, and the digest of the code and settings with which each
        running part of Vestal was started.
        """
        return web.json_response(await asyncio.to_thread(self._context.upgrades.as_json))
