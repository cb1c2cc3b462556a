"""A fake agent for tests of the status page: it serves the page's real files, and answers that the test
sets.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from host_agent.listener.proxy.routes import MAX_BODY_BYTES
from host_agent.status_page.page import Page
from tests.component.host_agent.page import stories
from vestal.web.aiohttp_runner import JsonAppRunner

Answer = (
    Any  # a JSON body, a web.Response, or a (maybe async) function of the request that returns one of them
)


class ScriptedAgent:
    """Serves the page on the given port from a thread of its own. The port must stay free while the agent is
    stopped, so it must not be one that the system gives to other programs.

    `answers` has the body for each method and path, such as `("GET", "/gateway/api/tags")`; a status other
    than 200 needs a `web.Response`. `asked` lists the received requests as (method, path, body). While
    `closed` is true, every route except the page's files answers 401, as to a browser without a session.
    """

    def __init__(self, port: int) -> None:
        self.status: dict[str, Any] = stories.status()
        self.incidents: list[dict[str, Any]] = []
        self.sample: dict[str, Any] | None = None
        self.requests: dict[str, Any] = {"requests": [], "totals": {}}
        self.answers: dict[tuple[str, str], Answer] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.closed = False
        self.port = port
        self.page = Page()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self._runner: JsonAppRunner | None = None
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def streams(self) -> int:
        """Return the number of open streams of /live. The agent notices a closed one when it next sends."""
        return len(self._streams)

    def start(self) -> ScriptedAgent:
        """Start to listen, or listen again after a `stop`."""
        self._run(self._start())
        return self

    def stop(self) -> None:
        """Close the port and all connections, as when the agent is killed."""
        self._run(self._stop())

    def end(self) -> None:
        """Stop the server, and end its thread."""
        self.stop()
        self._run(self._cancel_handlers())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(self, event: str, data: Any) -> None:
        """Send one event on every open stream of /live."""
        frame = f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
        for queue in list(self._streams):
            self._loop.call_soon_threadsafe(queue.put_nowait, frame)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the agent's event loop."""
        self._loop.call_soon_threadsafe(function)

    def send_status(self, **changes: Any) -> None:
        """Change the status, and send it."""
        self.status |= changes
        self.send("status", self.status)

    def send_incident(self, incident: dict[str, Any]) -> None:
        """Add or replace an incident, and send it."""
        self.incidents = [incident] + [each for each in self.incidents if each["id"] != incident["id"]]
        self.send("incident", incident)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/assets/{path:.+}", self._asset),
                web.get("/live", self._live),
                web.route("*", "/{path:.*}", self._scripted),
            ]
        )
        # aiohttp's own site is an asyncio server, which resets a connection that it accepts as it is closed.
        self._runner = JsonAppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._runner.listen("127.0.0.1", self.port)

    async def _stop(self) -> None:
        for queue in self._streams:
            queue.put_nowait(None)
        if self._runner and self._runner.server:
            for site in list(self._runner.sites):
                await site.stop()
            await asyncio.sleep(0.01)  # the connections that were just accepted have their transports
            transports = [connection.transport for connection in self._runner.server.connections]
            await self._runner.cleanup()
            for transport in filter(None, transports):
                transport.abort()  # one whose client does not read would stay open
            self._runner = None

    async def _cancel_handlers(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # closed transports close their sockets in the loop's next turns

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not request.path.startswith("/assets/"):
            body = await request.json() if request.can_read_body else None
            self.asked.append((request.method, request.path_qs, body))
            if self.closed and request.path not in ("/", "/health"):
                return web.json_response(
                    {"error": {"code": "unauthorized", "message": "Closed."}}, status=401
                )
        return await handler(request)

    async def _index(self, request: web.Request) -> web.Response:
        return self.page.response(request)

    async def _asset(self, request: web.Request) -> web.Response:
        return self.page.response(request, request.match_info["path"])

    async def _live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._streams.add(queue)
        try:
            await response.prepare(request)
            first = [("status", self.status), ("requests", self.requests)]
            first += [("incident", each) for each in self.incidents if each["open"]]
            first += [("sample", self.sample)] if self.sample else []
            for event, data in first:
                await response.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())
            while frame := await queue.get():
                await response.write(frame)
        except ConnectionError:
            pass  # the browser has closed the page
        finally:
            self._streams.discard(queue)
        return response

    async def _scripted(self, request: web.Request) -> web.StreamResponse:
        answer = self.answers.get((request.method, request.path), self._usual(request))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer is None:
            error = {"code": "not_found", "message": f"There is nothing at {request.path}."}
            return web.json_response({"error": error}, status=404)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    def _usual(self, request: web.Request) -> Any:
        """Return the default answer to a request that the test has not scripted; None if there is none."""
        usual = {
            ("GET", "/health"): {"status": "ok"},
            ("GET", "/status"): self.status,
            ("GET", "/incidents"): {"incidents": self.incidents},
            ("GET", "/history"): stories.history(request.query.get("range", "hour")),
            ("POST", "/recover"): {"run_id": "r1", "state": "started", "retry_after_s": 5},
        }
        return usual.get((request.method, request.path))
