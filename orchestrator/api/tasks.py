"""Define the routes of tasks: create, list, show, follow and cancel them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

from aiohttp import web

from orchestrator.agents.agents import LEAD
from orchestrator.api.requests import field, limit_of, read_object
from orchestrator.container import Container
from orchestrator.errors import DatabaseFailed
from orchestrator.tasks.view import FINISHED
from orchestrator.unicode import replace_invalid_unicode
from vestal.tracing import HEADER
from vestal.web import server_sent_events
from vestal.web.aiohttp_adapter import begin_event_stream
from vestal.web.http_error import HttpError

MAX_GOAL_CHARS = 16_000
MAX_AGENTS = 8
MAX_KEY_CHARS = 200
POLL_EACH_S = 0.3  # the database is read, since another worker may run the task
KEEPALIVE_EACH_S = 15.0  # `vestal task` takes a stream that is silent for 60 s for dead


class TaskRoutes:
    """The routes of tasks. A stream of events is never silent for more than `keepalive_each_s` seconds, even
    if the database takes longer to answer.
    """

    def __init__(self, container: Container, keepalive_each_s: float = KEEPALIVE_EACH_S) -> None:
        self._container = container
        self._keepalive_each_s = keepalive_each_s

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/tasks", self.create)
        app.router.add_get("/tasks", self.list)
        app.router.add_get("/tasks/{id}", self.show)
        app.router.add_delete("/tasks/{id}", self.cancel)
        app.router.add_get("/tasks/{id}/events", self.events, allow_head=False)

    async def create(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        goal = field(body, "goal", str, required=True).strip()
        if not goal:
            raise HttpError("empty_goal", "`goal` is empty; say what the agents should do.", status=400)
        if len(goal) > MAX_GOAL_CHARS:
            raise HttpError("too_large", f"`goal` is over {MAX_GOAL_CHARS} characters.")
        key = field(body, "idempotency_key", str)
        if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
            message = f"`idempotency_key` must have 1 to {MAX_KEY_CHARS} characters."
            raise HttpError("invalid_request", message)
        traceparent = request.headers.get(HEADER)
        agents = self._agents(body)
        named = agents if body.get("agents") else []
        task_id = await self._container.tasks.submit(goal, agents, key, traceparent, named)
        return web.json_response({"id": task_id}, status=201, headers={"Location": f"/tasks/{task_id}"})

    def _agents(self, body: dict[str, Any]) -> list[str]:
        given = field(body, "agents", list)
        if not given:  # the lead chooses the agents, if there are others
            return [LEAD] if len(self._container.agents) == 1 else []
        names = list(dict.fromkeys(given) if all(isinstance(name, str) for name in given) else [None])
        unknown = [name for name in names if name not in self._container.agents]
        if unknown:
            known = ", ".join(self._container.agents)
            message = f"There is no agent {str(unknown[0])[:80]!r}; there are: {known}."
            raise HttpError("unknown_agent", message, status=400)
        if len(names) > MAX_AGENTS:
            raise HttpError("invalid_request", f"`agents` may name {MAX_AGENTS} at most.")
        return names

    async def list(self, request: web.Request) -> web.Response:
        found = await self._container.tasks.list(limit_of(request, default=50, maximum=500))
        return web.json_response({"tasks": found})

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(await self._task(request))

    async def cancel(self, request: web.Request) -> web.Response:
        await read_object(request, may_be_empty=True)
        task = await self._task(request)
        if task["state"] in ("done", "failed"):
            raise HttpError("task_finished", f"The task is {task['state']} already.", status=409)
        if task["state"] != "cancelled":
            await self._container.tasks.cancel(task["id"])
        return web.json_response({"id": task["id"], "state": "cancelled"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the whole task as a `task` event (server-sent events), at once and at each change, until it is
        finished.
        """
        task = await self._task(request)
        response = await begin_event_stream(request)
        sent = ""
        while True:
            text = replace_invalid_unicode(json.dumps(task, ensure_ascii=False))
            if text != sent:
                await response.write(server_sent_events.frame(text.encode(), "task"))
                sent, sent_at = text, time.monotonic()
            if task["state"] in FINISHED:
                await response.write_eof()
                return response
            look = asyncio.create_task(self._look_again(request, task))
            try:
                while not look.done():
                    silent_s = time.monotonic() - sent_at
                    await asyncio.wait([look], timeout=max(0.0, self._keepalive_each_s - silent_s))
                    if time.monotonic() - sent_at >= self._keepalive_each_s:
                        await response.write(server_sent_events.KEEP_ALIVE)
                        sent_at = time.monotonic()
            finally:
                look.cancel()
            task = look.result()

    async def _look_again(self, request: web.Request, before: dict[str, Any]) -> dict[str, Any]:
        """Wait POLL_EACH_S seconds, and return the task's state after that. If the database fails, return
        `before`, the task's earlier state, because the database may work again at the next call.
        """
        await asyncio.sleep(POLL_EACH_S)
        try:
            return await self._task(request)
        except DatabaseFailed:
            return before

    async def _task(self, request: web.Request) -> dict[str, Any]:
        task_id = request.match_info["id"]
        task = await self._container.tasks.get(task_id) if _is_id(task_id) else None
        if task is None:
            raise HttpError("unknown_task", f"There is no task {task_id[:80]!r}.", status=404)
        return task


def _is_id(text: str) -> bool:
    """Return True if the text has the form of a task's id, a UUID. Any other text is not looked up in the
    database, because it may contain a NUL, say, which Postgres would report as a failure.
    """
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
