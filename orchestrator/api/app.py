"""The HTTP API on port 8088: health, cycles, agents, knowledge and metrics. `tasks` has the routes of tasks.

Every route except GET /health needs `Authorization: Bearer <token>`. An error has the body `{"error":
{"code", "message"}}`, and means that the request had no effect.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from orchestrator import VERSION
from orchestrator.api.guard import MAX_BODY_BYTES, Guard
from orchestrator.api.requests import field, limit_of, read_object
from orchestrator.api.tasks import TaskRoutes
from orchestrator.container import Container
from orchestrator.cycle_runner import CycleRunner
from orchestrator.knowledge.search.scope import Scope
from vestal.web.http_error import HttpError

DEFAULT_RESULTS = 5


def make_app(container: Container, runner: CycleRunner) -> web.Application:
    guard = Guard(container.config.token, container.config.bind, container.database.failure)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[guard.middleware()])
    routes = Routes(container, runner)
    app.router.add_get("/health", routes.health)
    app.router.add_get("/cycles", routes.cycles)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/agents", routes.agents)
    app.router.add_post("/knowledge/search", routes.search)
    app.router.add_get("/knowledge/notes", routes.notes)
    TaskRoutes(container).add_to(app)
    return app


class Routes:
    def __init__(self, container: Container, runner: CycleRunner) -> None:
        self._container = container
        self._runner = runner
        self._since = time.monotonic()

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 while this process works, even if every LLM is down or the database cannot be used,
        because a restart of this process would not help them.
        """
        last = self._runner.last
        used = [b for b in self._container.board.backends if b.used]
        failure = self._runner.database_failure
        body = {
            "status": "degraded" if failure or any(b.down for b in used) else "ok",
            "database": failure or "ok",
            "version": VERSION,
            "uptime_s": round(time.monotonic() - self._since, 1),
            "cycles": self._runner.cycles,
            "last_cycle": {key: last[key] for key in ("id", "finished_at", "duration_s")} if last else None,
            "backends": {b.name: b.healthy for b in used},
            "absent": [b.name for b in used if b.absent],
        }
        return web.json_response(body)

    async def cycles(self, request: web.Request) -> web.Response:
        """Return the records of the orchestrator's newest cycles, the newest first: what each cycle did and
        skipped, and why. The query parameter `limit` is their number, 20 by default.
        """
        limit = limit_of(request, default=20, maximum=500)
        found = await asyncio.to_thread(self._container.cycles.latest, limit)
        return web.json_response({"cycles": found})

    async def metrics(self, request: web.Request) -> web.Response:
        from orchestrator.api import metrics  # only at the first call, as it takes over 1 MB

        text = await metrics.text(self._container, self._runner, time.monotonic() - self._since)
        return web.Response(text=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def search(self, request: web.Request) -> web.Response:
        """Answer with the `k` indexed passages (5 by default) that match `query` best. `query`, `k`, `agent`
        and `path` are fields of the body, and only `query` is required.

        If the body has an `agent`, only passages from the knowledge folders of that agent are returned; if it
        has a `path`, only passages from files whose paths in their folder begin with it. Raises HttpError if
        the body or a field is invalid, or the agent is unknown.
        """
        body = await read_object(request)
        query = field(body, "query", str, required=True).strip()
        agent = field(body, "agent", str)
        given = field(body, "k", int)
        k = DEFAULT_RESULTS if given is None else given
        if not query or not 1 <= k <= 50:
            raise HttpError("invalid_request", "`query` must not be empty, and `k` be from 1 to 50.")
        folders = None if agent is None else await self._folders_of(agent)
        scope = Scope(folders, field(body, "path", str) or "")
        findings = await self._container.search.find(query, scope, k)
        return web.json_response(findings.as_json())

    async def notes(self, request: web.Request) -> web.Response:
        """Return the note on each agent's knowledge folder: a few sentences about its files, written at
        night.
        """
        return web.json_response({"notes": await asyncio.to_thread(self._container.notes.all)})

    async def agents(self, request: web.Request) -> web.Response:
        """Return the agents that a task can name, and how many files and passages are indexed in each
        knowledge folder.

        `searches` names the folders that an agent may search; null means all of them.
        """
        agents = [
            {
                "name": agent.name,
                "role": agent.role,
                "model": agent.model,
                "searches": agent.folders if agent.searches else (),
            }
            for agent in self._container.agents.values()
        ]
        indexed = await asyncio.to_thread(self._container.knowledge.counts_by_agent)
        nothing = {"files": 0, "passages": 0}
        names = sorted({*indexed, *(await asyncio.to_thread(self._container.folders)).by_agent})
        folders = {name: indexed.get(name, nothing) for name in names}
        return web.json_response({"agents": agents, "folders": folders})

    async def _folders_of(self, agent: str) -> tuple[str, ...] | None:
        if agent in self._container.agents:
            return self._container.agents[agent].folders
        folders = (await asyncio.to_thread(self._container.folders)).by_agent
        if agent in folders:
            return (agent,)
        known = ", ".join(sorted({*self._container.agents, *folders}))
        message = f"There is no agent {agent[:80]!r}; there are: {known}."
        raise HttpError("unknown_agent", message, status=404)
