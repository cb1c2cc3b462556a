"""Answers that end when their client leaves: waiting for the first event, and streaming the rest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_server.gateway.requests.ticket import ClientDisconnected

T = TypeVar("T")
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


def client_of(request: Request, user: str | None = None) -> str:
    """Who asks, for fairness: the address, the key, and the user that an OpenAI body may name."""
    key = request.headers.get("authorization", "")
    mark = hashlib.sha256(key.encode()).hexdigest()[:8] if key else ""
    address = request.client.host if request.client else ""
    return f"{address}|{mark}|{user or ''}"


class Leaving(Protocol):
    """What is given up when its client leaves: a ticket, or several."""

    @property
    def id(self) -> str: ...
    def cancel(self) -> None: ...


async def unless_left(request: Request, ticket: Leaving, answer: Awaitable[T]) -> T:
    """`answer`, while the client is there; when it hangs up, the ticket is cancelled: ClientDisconnected."""
    watch = asyncio.ensure_future(_cancel_when_gone(request.receive, ticket))
    try:
        return await answer
    except BaseException:
        ticket.cancel()
        raise
    finally:
        await _end(watch)


class StreamedAnswer(Response):
    """A body made piece by piece from a ticket's events; a client that hangs up cancels the ticket."""

    def __init__(self, ticket: Leaving, pieces: AsyncIterator[str], media_type: str) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self._ticket = ticket
        self._pieces = pieces
        self.init_headers({"cache-control": "no-cache", "x-request-id": ticket.id})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.ensure_future(_cancel_when_gone(receive, self._ticket))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            with contextlib.suppress(ClientDisconnected):
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._ticket.cancel()
            await _end(watch)


async def _cancel_when_gone(receive: Callable[[], Awaitable[object]], ticket: Leaving) -> None:
    while (await receive()) != {"type": "http.disconnect"}:
        pass
    ticket.cancel()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
