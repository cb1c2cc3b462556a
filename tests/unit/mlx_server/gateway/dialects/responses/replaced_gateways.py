"""Gateways that follow one another on one answer log: real routes, middleware, keeper and log, without an
engine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.answer_log import AnswerLog
from mlx_server.gateway.dialects.body_budget import BodyBudget, ShareBodies
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.error_envelopes import error_response
from mlx_server.gateway.dialects.responses import routes
from mlx_server.gateway.kept_answers import routes as kept_routes
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.gateway.kept_answers.middleware import KeepAnswers
from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.sendable import SendableRequest
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket
from mlx_server.model_store.catalog.entry import ModelEntry
from mlx_server.protocol import codec
from tests.unit.mlx_server.gateway.kept_answers.kept_routes import until
from vestal.config.load import load
from vestal.supervision import SystemClock
from vestal.web.http_error import HttpError

MODEL = ModelEntry(
    "m:latest", Path("/m"), "generate", 1, 1, 0.0, "safetensors", "llama", "1B", "F16", 4096, "0" * 64
)
PATHS = ("/v1/responses", "/v1/responses/compact")
USAGE = protocol.Usage(5, 1)


class Clock(SystemClock):
    """The real clock, which a test can put forward by `ahead_s`."""

    ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s

    def wall(self) -> float:
        return super().wall() + self.ahead_s


class Engine:
    """Stands in for the dispatcher. It answers each request at once with the tokens `o` and `k`, or only with
    the first one while `is_slow`. `prompts` has the requests that it was sent, as (role, text) of their
    messages.
    """

    def __init__(self) -> None:
        self.is_slow = False
        self.prompts: list[list[tuple[str, str]]] = []
        self.tickets: list[Ticket] = []

    def new_request_id(self) -> str:
        return f"r-{len(self.tickets)}"

    def submit(
        self,
        request: SendableRequest,
        client: str,
        dialect: str,
        resumed: ResumedRequest | None = None,
        trace: Any = None,
    ) -> Ticket:
        def cancel(ticket: Ticket) -> None:
            ticket.outcome = "cancelled"
            ticket.put(ClientDisconnected())

        ticket = Ticket(resumed.id if resumed else self.new_request_id(), request, dialect, 0.0, cancel)
        if resumed:
            ticket.resume(resumed)
        if not ticket.ended:
            op = msgspec.structs.asdict(codec.decode_op(request.frame("x", ())))
            self.prompts.append([(each["role"], each["content"]) for each in op["messages"]])
            self.tickets.append(ticket)
            asyncio.get_running_loop().call_soon(self._answer, ticket, bool(op["count_only"]))
        return ticket

    def _answer(self, ticket: Ticket, is_count: bool) -> None:
        if ticket.ended:
            return
        for index in range(0 if is_count else 1 if self.is_slow else 2):
            if index >= ticket.tokens:
                ticket.tokens += 1
                ticket.put(protocol.Token(ticket.id, index, "ok"[index], index, prompt_tokens=5))
        if is_count or not self.is_slow:
            ticket.outcome = "done"
            ticket.put(protocol.Done(ticket.id, "stop", USAGE))


class Gateway:
    """One gateway on the answer log; `http` sends it requests."""

    def __init__(self, home: Path, log: AnswerLog, clock: Clock, body_budget_bytes: int) -> None:
        config = load({"HOME": str(home), "VESTAL_HOME": str(home)}, home)
        self.engine = Engine()
        self.keeper = AnswerKeeper(log, clock)

        async def get(name: str, kind: str | None = None) -> ModelEntry:
            return MODEL

        models: Any = SimpleNamespace(get=get)
        engine: Any = self.engine
        self.context = GatewayContext(config, clock, engine, models, self.keeper)
        self.app = FastAPI()
        self.app.include_router(routes.router(self.context))
        self.app.include_router(kept_routes.router(self.keeper))
        self.app.add_middleware(ShareBodies, budget=BodyBudget(body_budget_bytes, 0.5))
        self.app.add_middleware(
            KeepAnswers, keeper=self.keeper, paths=PATHS, max_body_bytes=10**7, respond=error_response
        )
        self.app.add_exception_handler(HttpError, _failed)
        self.app.add_exception_handler(ClientDisconnected, _gone)
        self.app.middleware_stack = self.app.build_middleware_stack()
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://localhost", timeout=5
        )

    async def ask(self, content: Any, path: str = "", **more: Any) -> Any:
        """POST an input, and return the response's status and JSON."""
        body = {"model": "m", "input": content, **more}
        answer = await self.http.post(f"/v1/responses{path}", json=body)
        return answer.status_code, answer.json()

    async def response(self, content: Any, **more: Any) -> dict[str, Any]:
        """POST an input, and return the response, which must be completed."""
        status, response = await self.ask(content, **more)
        assert (status, response["status"]) == (200, "completed"), response
        return dict(response)

    async def begin(self, content: Any, path: str = "", **more: Any) -> str:
        """POST an input to a slow engine, and return the id of the answer, once it is in the log."""
        self.engine.is_slow = True
        count = len(self.keeper.running)
        asyncio.ensure_future(self.ask(content, path, **more))
        await until(lambda: len(self.keeper.running) > count)
        answer = self.keeper.running[-1]
        await asyncio.wait_for(answer.is_prepared.wait(), 5)
        await asyncio.sleep(0)
        await self.keeper.log.flush()
        return answer.id

    async def get(self, path: str) -> Any:
        """GET a path, and return the response's status and JSON."""
        answer = await self.http.get(path)
        return answer.status_code, answer.json()

    async def streamed_then_left(self, content: str, frames: int) -> str:
        """POST an input, hang up after so many frames, and return the response's id."""
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        body = json.dumps({"model": "m", "input": content, "stream": True}).encode()
        inbox.put_nowait({"type": "http.request", "body": body})
        got: list[bytes] = []

        async def receive() -> dict[str, Any]:
            message = await inbox.get()
            if message["type"] == "http.disconnect":
                inbox.put_nowait(message)  # the server reports it again each time
            return message

        async def send(message: Any) -> None:
            got.append(message.get("body", b""))
            if len(got) == frames + 1:
                inbox.put_nowait({"type": "http.disconnect"})

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/v1/responses",
            "query_string": b"",
            "state": {},
        }
        scope |= {"headers": [], "root_path": "", "client": None, "http_version": "1.1", "scheme": "http"}
        await asyncio.wait_for(self.app(scope, receive, send), 5)
        await until(lambda: not self.keeper.running)
        first = next(line for line in b"".join(got).decode().split("\n") if line.startswith("data: "))
        return str(json.loads(first.removeprefix("data: "))["response"]["id"])


class Conversation:
    """A client's WebSocket to a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/v1/responses",
            "query_string": b"",
            "root_path": "",
        }
        scope |= {"headers": [], "state": {}, "scheme": "ws", "client": None, "subprotocols": []}
        self._task = asyncio.ensure_future(gateway.app(scope, self._inbox.get, self._sent.put))

    def send(self, content: str, **more: Any) -> None:
        body = {"type": "response.create", "model": "m", "input": content, **more}
        self._inbox.put_nowait({"type": "websocket.receive", "text": json.dumps(body)})

    async def events(self, last: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the events of a turn up to the first one whose type is in `last`."""
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] not in last:
            message = await asyncio.wait_for(self._sent.get(), 5)
            if message["type"] == "websocket.send":
                events.append(json.loads(message["text"]))
        return events

    async def turn(self, content: str, **more: Any) -> list[dict[str, Any]]:
        """Return all events of a turn."""
        self.send(content, **more)
        return await self.events(("response.completed", "response.incomplete", "response.failed", "error"))

    async def close(self) -> None:
        self._inbox.put_nowait({"type": "websocket.disconnect"})
        await asyncio.wait_for(self._task, 5)


class Gateways:
    """Starts gateways on one answer log, one after the other. `clock` is that of all of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = Clock()
        self.body_budget_bytes = 10**7

    @asynccontextmanager
    async def next(self) -> AsyncIterator[Gateway]:
        """Run a gateway, which takes up what the one before it has left, and stop it at the end."""
        log = await AnswerLog.open(
            self.home / "answers",
            keep_s=3600.0,
            max_bytes=10**9,
            max_answers=1000,
            clock=self.clock,
            emit=lambda *_, **__: None,
        )
        gateway = Gateway(self.home, log, self.clock, self.body_budget_bytes)
        try:
            await gateway.keeper.take_up_unfinished(gateway.app)
            yield gateway
            await asyncio.sleep(0)
        finally:
            await gateway.keeper.close()
            await gateway.http.aclose()


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    if answer := kept_answer_of(request.scope):
        answer.fail(error)
    return error_response(error, request.url.path)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)
