"""Run a stand-in for the models that answers at once: `python -m benchmarks.orchestrator.stand_in`.

It has Ollama's API, and the host agent's `POST /recover`. The vector of a text is one of 4,096, chosen by the
text's hash. POST /control sets `chat_s` (the seconds that an answer takes) and `mode` (`ok`, or `error`: 500
to everything). GET /work returns the number of chat calls, and for how many seconds none was in flight
between the first and the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

DIM, VECTORS = 384, 4096
ALWAYS = ("/control", "/work", "/recover")
MODELS = ("smollm2:135m", "all-minilm:latest")


@dataclass
class Work:
    """Counts chat calls, and the seconds without any call in flight.

    `calls` is the number of all calls, `in_flight` of those without an answer. `first_at` is when the first
    call began, and `last_at` when a call last ended, in monotonic seconds. `gaps` has the lengths of the gaps
    between two calls in which none was in flight, and `idle_s` is their sum.
    """

    calls: int = 0
    in_flight: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    idle_s: float = 0.0
    gaps: list[float] = field(default_factory=list)

    def begin(self) -> None:
        now = time.monotonic()
        if not self.calls:
            self.first_at = now
        elif not self.in_flight:
            self.idle_s += now - self.last_at
            self.gaps.append(now - self.last_at)
        self.calls += 1
        self.in_flight += 1

    def end(self) -> None:
        self.in_flight -= 1
        self.last_at = time.monotonic()


class StandIn:
    def __init__(self) -> None:
        draw = random.Random(1)
        rows = [[round(draw.gauss(0, 0.051), 4) for _ in range(DIM)] for _ in range(VECTORS)]
        self._vectors = [json.dumps(row) for row in rows]
        self._settings: dict[str, Any] = {"mode": "ok", "chat_s": 0.0}
        self._work = Work()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20, middlewares=[self._fail_if_asked])
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/health", self._health)
        app.router.add_post("/api/show", self._show)
        app.router.add_post("/api/embed", self._embed)
        app.router.add_post("/api/chat", self._chat)
        app.router.add_post("/recover", self._recover)
        app.router.add_post("/control", self._control)
        app.router.add_get("/work", self._get_work)
        return app

    @web.middleware
    async def _fail_if_asked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._settings["mode"] == "error" and request.path not in ALWAYS:
            return web.json_response({"error": "away"}, status=500)
        return await handler(request)

    async def _tags(self, request: web.Request) -> web.Response:
        return web.json_response({"models": [{"name": name} for name in MODELS]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response({"model_info": {"stand.context_length": 8192}})

    async def _embed(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        rows = (self._vectors[zlib.crc32(text.encode()) % VECTORS] for text in texts)
        return web.Response(text=f'{{"embeddings": [{", ".join(rows)}]}}', content_type="application/json")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._work.begin()
        try:
            await asyncio.sleep(self._settings["chat_s"])
        finally:
            self._work.end()
        said = {"message": {"role": "assistant", "content": "An answer."}, "done": not body.get("stream")}
        if not body.get("stream"):
            return web.json_response(said)
        last = {"message": {"role": "assistant", "content": ""}, "done": True}
        lines = f"{json.dumps(said)}\n{json.dumps(last)}\n"
        return web.Response(text=lines, content_type="application/x-ndjson")

    async def _recover(self, request: web.Request) -> web.Response:
        return web.json_response({"run_id": "1", "state": "started", "retry_after_s": 1}, status=202)

    async def _control(self, request: web.Request) -> web.Response:
        self._settings.update(await request.json())
        self._work = Work()
        return web.json_response({})

    async def _get_work(self, request: web.Request) -> web.Response:
        work = self._work
        whole_s = max(0.0, work.last_at - work.first_at)
        return web.json_response(
            {"calls": work.calls, "whole_s": whole_s, "idle_s": work.idle_s, "gaps": work.gaps}
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    web.run_app(
        StandIn().app(), host=given.bind, port=given.port, print=lambda line: print("ready", flush=True)
    )


if __name__ == "__main__":
    main()
