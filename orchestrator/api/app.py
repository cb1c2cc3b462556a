"""The API on :8088: health, cycles, knowledge and metrics here, tasks in api_tasks.

All but GET /health wants `Authorization: Bearer <token>`; `guard` has the rest of who may come in. A refusal
is {"error": {"code", "message"}}, and nothing has been done.
"""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from orchestrator import VERSION
from orchestrator.api import metrics
from orchestrator.api.guard import Handler, guard
from orchestrator.api.requests import body_of, field, limit_of
from orchestrator.api.tasks import TaskRoutes
from orchestrator.container import Container
from orchestrator.cycle_runner import CycleRunner
from orchestrator.errors import (
    BackendError,
    DatabaseFailed,
    IdempotencyConflict,
    OrchestratorError,
    RequestRefused,
)
from orchestrator.events import emit
from orchestrator.knowledge.search.scope import Scope
from orchestrator.unicode import replace_invalid_unicode

MOST_BODY_BYTES = 64 * 1024
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def make_app(parts: Container, runner: CycleRunner) -> web.Application:
    app = web.Application(
        client_max_size=MOST_BODY_BYTES, middlewares=[_errors, guard(parts.config.token, parts.config.bind)]
    )
    routes = Routes(parts, runner)
    app.router.add_get("/health", routes.health)
    app.router.add_get("/cycles", routes.cycles)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_post("/knowledge/search", routes.search)
    app.router.add_get("/knowledge/notes", routes.notes)
    TaskRoutes(parts).add_to(app)
    return app


class Routes:
    def __init__(self, parts: Container, runner: CycleRunner) -> None:
        self._parts = parts
        self._runner = runner
        self._since = time.monotonic()

    async def health(self, request: web.Request) -> web.Response:
        """200 while the process does its work, be the LLMs up or down: restarting it would not help them."""
        last = self._runner.last
        used = [b for b in self._parts.board.backends if b.used]
        body = {
            "status": "degraded" if any(b.down for b in used) else "ok",
            "version": VERSION,
            "uptime_s": round(time.monotonic() - self._since, 1),
            "cycles": self._runner.cycles,
            "last_cycle": {key: last[key] for key in ("id", "finished_at", "duration_s")} if last else None,
            "backends": {b.name: b.healthy for b in used},
            "absent": [b.name for b in used if b.absent],
        }
        return web.json_response(body)

    async def cycles(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._parts.cycles.latest, limit_of(request, default=20, most=500))
        return web.json_response({"cycles": found})

    async def metrics(self, request: web.Request) -> web.Response:
        text = await metrics.render(self._parts, self._runner, time.monotonic() - self._since)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def search(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        query = field(body, "query", str, required=True).strip()
        agent = field(body, "agent", str)
        k = field(body, "k", int) if "k" in body else 5
        if not query or not 1 <= k <= 50:
            raise RequestRefused(400, "bad_request", "`query` must not be empty, and `k` be from 1 to 50.")
        agents = None if agent is None else self._folders_of(agent)
        scope = Scope(agents, field(body, "path", str) or "")
        findings = await self._parts.search.find(query, scope, k)
        return web.json_response(findings.as_json())

    async def notes(self, request: web.Request) -> web.Response:
        """What each agent knows, in a few sentences that nightly wrote."""
        return web.json_response({"notes": await asyncio.to_thread(self._parts.notes.all)})

    def _folders_of(self, agent: str) -> tuple[str, ...] | None:
        if agent in self._parts.agents:
            return self._parts.agents[agent].folders
        if agent in self._parts.folders():
            return (agent,)
        known = ", ".join(sorted({*self._parts.agents, *self._parts.folders()}))
        raise RequestRefused(404, "unknown_agent", f"there is no agent {agent[:80]!r}; there are: {known}.")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where an error becomes an answer."""
    try:
        return await handler(request)
    except RequestRefused as error:
        return refusal(error.status, error.code, error.message)
    except IdempotencyConflict as error:
        return refusal(409, error.code, error.message)
    except BackendError as error:
        return refusal(503, error.code, error.message, {"Retry-After": "15"})
    except DatabaseFailed as error:
        return refusal(503, error.code, error.message, {"Retry-After": "5"})
    except OrchestratorError as error:
        return refusal(500, error.code, error.message)
    except web.HTTPException as error:
        code = CODES.get(error.status, "error")
        return refusal(error.status, code, _sentence(error, request))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        emit("request_failed", repr(error), method=request.method, path=request.path)
        return refusal(500, "internal_error", f"{type(error).__name__}; the orchestrator's log has more.")


def refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)
    extra = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return web.Response(
        status=status,
        text=replace_invalid_unicode(body),
        content_type="application/json",
        headers={**extra, **(headers or {})},
    )


def _sentence(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 413:
        return f"the body is over the {MOST_BODY_BYTES} bytes that are taken."
    if error.status == 404:
        return f"there is nothing at {request.path[:200]}."
    return f"{error.reason}."
