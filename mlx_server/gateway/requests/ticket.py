"""A client's hold on its request: events come out in order, whatever happens to engines meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from mlx_server import protocol
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.requests.generation_request import Request
from mlx_server.gateway.telemetry import EndedRequest

Item = protocol.Token | protocol.Done | protocol.Embedding | protocol.Loaded | protocol.Unloaded
LAST = (protocol.Done, protocol.Embedding, protocol.Loaded, protocol.Unloaded)


class ClientLeft(Exception):
    """The client has hung up: nobody reads the answer."""


class Ticket:
    """One request in the gateway's hands. Times are the clock's monotonic seconds."""

    def __init__(
        self,
        request_id: str,
        request: Request,
        dialect: str,
        submitted_at: float,
        on_cancel: Callable[[Ticket], None],
    ) -> None:
        self.id = request_id
        self.request = request
        self.dialect = dialect
        self.submitted_at = submitted_at
        self.first_token_at: float | None = None
        self.tokens = 0
        self.crashes = 0
        self.outcome: str | None = None
        self._on_cancel = on_cancel
        self._items: asyncio.Queue[Item | GatewayError | ClientLeft] = asyncio.Queue()

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    def put(self, item: Item | GatewayError | ClientLeft) -> None:
        self._items.put_nowait(item)

    async def next(self) -> Item:
        """The next event. Raises GatewayError where the request failed, ClientLeft where it was cancelled."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def events(self, first: Item | None = None) -> AsyncIterator[Item]:
        """All events (after `first`, already taken) up to and with the last one."""
        item = first or await self.next()
        yield item
        while not isinstance(item, LAST):
            item = await self.next()
            yield item

    async def last(self) -> Item:
        """The last event, tokens skipped."""
        while not isinstance(item := await self.next(), LAST):
            pass
        return item

    def ended_request(self, now: float) -> EndedRequest:
        """Return what telemetry counts and writes about this request, which ended at `now`."""
        first_s = None if self.first_token_at is None else self.first_token_at - self.submitted_at
        return EndedRequest(
            self.id,
            self.dialect,
            self.request.model,
            self.outcome or "unknown",
            self.tokens,
            self.crashes,
            now - self.submitted_at,
            first_s,
        )

    def cancel(self) -> None:
        """The client has left. Nothing happens where the request has ended."""
        if not self.ended:
            self._on_cancel(self)
