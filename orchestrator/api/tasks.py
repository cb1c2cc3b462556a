"""The API's tasks: accept, list, show, follow, cancel."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from orchestrator.agents.agents import LEAD
from orchestrator.api.requests import body_of, field, limit_of
from orchestrator.container import Container
from orchestrator.errors import RequestRefused
from orchestrator.tasks.view import FINISHED
from orchestrator.unicode import replace_invalid_unicode

MOST_GOAL_CHARS = 16_000
MOST_AGENTS = 8
MOST_KEY_CHARS = 200
FOLLOW_EVERY_S = 0.3  # read from the database, so that a task is followed whoever works on it
KEEPALIVE_EVERY = 50  # rounds


class TaskRoutes:
    def __init__(self, parts: Container) -> None:
        self._parts = parts

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/tasks", self.create)
        app.router.add_get("/tasks", self.list)
        app.router.add_get("/tasks/{id}", self.show)
        app.router.add_delete("/tasks/{id}", self.cancel)
        app.router.add_get("/tasks/{id}/events", self.events)

    async def create(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        goal = field(body, "goal", str, required=True).strip()
        if not goal:
            raise RequestRefused(400, "empty_goal", "`goal` is empty; say what is to be done.")
        if len(goal) > MOST_GOAL_CHARS:
            raise RequestRefused(413, "too_large", f"`goal` is over {MOST_GOAL_CHARS} characters.")
        key = field(body, "idempotency_key", str)
        if key is not None and not 1 <= len(key) <= MOST_KEY_CHARS:
            raise RequestRefused(
                400, "bad_request", f"`idempotency_key` must have 1 to {MOST_KEY_CHARS} characters."
            )
        task_id = await self._parts.tasks.submit(goal, self._agents(body), key)
        return web.json_response({"id": task_id}, status=201, headers={"Location": f"/tasks/{task_id}"})

    def _agents(self, body: dict[str, Any]) -> list[str]:
        given = field(body, "agents", list)
        if not given:  # the lead plans who is asked, where there is anybody to choose from
            return [LEAD] if len(self._parts.agents) == 1 else []
        names = list(dict.fromkeys(given) if all(isinstance(name, str) for name in given) else [None])
        unknown = [name for name in names if name not in self._parts.agents]
        if unknown:
            known = ", ".join(self._parts.agents)
            raise RequestRefused(
                400, "unknown_agent", f"there is no agent {str(unknown[0])[:80]!r}; there are: {known}."
            )
        if len(names) > MOST_AGENTS:
            raise RequestRefused(400, "bad_request", f"`agents` may name {MOST_AGENTS} at most.")
        return names

    async def list(self, request: web.Request) -> web.Response:
        found = await self._parts.tasks.list(limit_of(request, default=50, most=500))
        return web.json_response({"tasks": found})

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(await self._task(request))

    async def cancel(self, request: web.Request) -> web.Response:
        task = await self._task(request)
        if task["state"] in ("done", "failed"):
            raise RequestRefused(409, "task_finished", f"the task is {task['state']} already.")
        if task["state"] != "cancelled":
            await self._parts.tasks.cancel(task["id"])
        return web.json_response({"id": task["id"], "state": "cancelled"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """SSE: a `task` event with the whole task at first and at each change, until it is finished."""
        task = await self._task(request)
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await reply.prepare(request)
        sent, rounds = "", 0
        while True:
            text = replace_invalid_unicode(json.dumps(task, ensure_ascii=False))
            if text != sent:
                await reply.write(f"event: task\ndata: {text}\n\n".encode())
                sent, rounds = text, 0
            elif (rounds := rounds + 1) % KEEPALIVE_EVERY == 0:
                await reply.write(b": waiting\n\n")
            if task["state"] in FINISHED:
                await reply.write_eof()
                return reply
            await asyncio.sleep(FOLLOW_EVERY_S)
            task = await self._task(request)

    async def _task(self, request: web.Request) -> dict[str, Any]:
        task_id = request.match_info["id"]
        task = await self._parts.tasks.get(task_id)
        if task is None:
            raise RequestRefused(404, "unknown_task", f"there is no task {task_id[:80]!r}.")
        return task
