"""A keeper of answers whose route and clients are played by a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.answer_log import AnswerLog
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.error_envelopes import error_response
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.gateway.kept_answers.middleware import KeepAnswers
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket
from vestal.supervision import FakeClock

PATH = "/api/chat"
BODY = b'{"model":"m"}'
START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"", "more_body": False}


def body_part(body: bytes = BODY, *, more: bool = False) -> dict[str, Any]:
    """Return the ASGI message with a part of a request's body."""
    return {"type": "http.request", "body": body, "more_body": more}


def frame(body: bytes) -> dict[str, Any]:
    """Return the ASGI message with a frame of a response."""
    return {"type": "http.response.body", "body": body, "more_body": True}


async def turns(count: int = 50) -> None:
    """Let all tasks run until they wait for something else than each other."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true, but at most 5 seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.001)


class Client:
    """One connection to the gateway, over which a request with the Idempotency-Key `key` is sent."""

    def __init__(self, application: Any, key: bytes = b"k1") -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        headers = [(b"idempotency-key", key)]
        scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers}
        self.task = asyncio.ensure_future(application({**scope, "state": {}}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        message = await self.inbox.get()
        if message["type"] == "http.disconnect":
            self.leave()  # the server reports it again each time
        return message

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def send_body(self) -> None:
        self.inbox.put_nowait(body_part())

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        """Return the HTTP status that the client has received; None before."""
        return self.sent[0].get("status") if self.sent else None

    @property
    def text(self) -> str:
        """Return the body that the client has received so far."""
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def is_complete(self) -> bool:
        """Return whether the client has received the end of the response."""
        return [message.get("more_body", False) for message in self.sent][1:][-1:] == [False]


class Gateway:
    """The middleware KeepAnswers around `route`, with the answer log `log`. `route` gets the ASGI scope, and
    the functions `receive` and `send`; `begin` submits its request, whose ticket is appended to `tickets`.
    """

    def __init__(self, log: AnswerLog, route: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self.log = log
        self.keeper = AnswerKeeper(log, FakeClock())
        self.tickets: list[Ticket] = []
        self.application = KeepAnswers(route, self.keeper, {PATH}, 10**6, error_response)

    def client(self, key: bytes = b"k1") -> Client:
        return Client(self.application, key)

    def begin(self, scope: Any, *, outlives_client: bool = False) -> Answers:
        """Submit the request of a route, as `GatewayContext.generate` does, and return its answers."""

        def cancel(ticket: Ticket) -> None:
            ticket.outcome = "cancelled"
            ticket.put(ClientDisconnected())

        kept = kept_answer_of(scope)
        assert kept is not None
        resumed = kept.resumed(0)
        ticket = Ticket(resumed.id, sendable(GenerationRequest("m", "chat")), "x", 0.0, cancel)
        ticket.resume(resumed)
        self.tickets.append(ticket)
        kept.accept(1, outlives_client=outlives_client)
        return Answers([ticket], FakeClock(), earlier=kept.history, record=kept.record)

    async def records(self) -> list[str]:
        """Return the names of the records in the log of the first answer, and the texts of its tokens."""
        records = await self.log.records(self.tickets[0].public_id) or []
        return [getattr(getattr(record, "event", None), "text", type(record).__name__) for record in records]


def token(index: int, text: str) -> protocol.Token:
    """Return the event with a token's text."""
    return protocol.Token("r", index, text, index)
