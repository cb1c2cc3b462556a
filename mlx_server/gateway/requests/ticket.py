"""A handler's view of a submitted request: the request's events in order, whichever engines they come
from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mlx_server import protocol
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.sendable import SendableRequest
from mlx_server.gateway.requests.token_rate import TokenRate
from mlx_server.gateway.telemetry import EndedRequest

LastEvent = protocol.Done | protocol.Embedding | protocol.Reranked | protocol.Loaded | protocol.Unloaded
TicketEvent = protocol.Token | LastEvent
LAST_EVENTS = (protocol.Done, protocol.Embedding, protocol.Reranked, protocol.Loaded, protocol.Unloaded)


class ClientDisconnected(Exception):
    """The client has closed its connection, so that nobody reads the answer."""


@dataclass(frozen=True)
class RequestOrigin:
    """The HTTP request that tickets belong to. `id` is its x-request-id.

    `client` is the name of the program that sent the request, and `remote` the program's address; each is
    empty if it is unknown. `began_at` is when the request arrived, in monotonic seconds.
    """

    id: str
    client: str
    remote: str
    began_at: float


TicketItem = TicketEvent | GatewayError | ClientDisconnected
"""An item that a ticket delivers: an event, or the error that ends the request."""


class Ticket:
    """One submitted request to the engine, as its handler sees it. Times are monotonic seconds.

    The dispatcher adds events with `put`, and records the course of the request in the attributes. The
    handler reads the events with `next` or `last`, or passes a function that receives them to `deliver_to`.
    If the handler cancels the request, `on_cancel` is called with the ticket.

    `public_id` is the id by which the client knows the request; it differs from `id` if this ticket resumes
    the request. `outcome` is None until the request ends, then `done`, `cancelled` or an error code.
    `prompt_tokens` is the length of the prompt, None while it is unknown. `origin` is the HTTP request that
    the ticket belongs to, None for the gateway's own requests. `is_read_for` is True while a running engine
    checks whether it can serve the request and has not loaded the request's model. Such a check takes longer,
    because the engine must read files of the model. `crashes` counts the engines that died while they ran the
    request. `was_returned` is True from the time at which an engine returns the request, because it shuts
    down, until the reason is known. `created_s` is when the request was first accepted, in
    seconds since 1970.
    """

    def __init__(
        self,
        request_id: str,
        request: SendableRequest,
        dialect: str,
        submitted_at: float,
        on_cancel: Callable[[Ticket], None],
    ) -> None:
        self.id = request_id
        self.public_id = request_id
        self.request = request
        self.dialect = dialect
        self.submitted_at = submitted_at
        self.first_token_at: float | None = None
        self.tokens = 0
        self.rate = TokenRate()
        self.origin: RequestOrigin | None = None
        self.crashes = 0
        self.was_returned = False
        self.outcome: str | None = None
        self.prompt_tokens: int | None = None
        self.is_read_for = False
        self.created_s: float | None = None
        self._on_cancel = on_cancel
        self._events: asyncio.Queue[TicketItem] = asyncio.Queue()
        self._deliver: Callable[[TicketItem], None] = self._events.put_nowait
        self._first: TicketItem | None = None
        self._on_first: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    @property
    def has_begun(self) -> bool:
        """Return whether an event or an error has arrived."""
        return self._first is not None

    def put(self, event: TicketItem) -> None:
        """Add an event, or the error that ends the request."""
        self._deliver(event)
        if self._first is None:
            self._note_first(event)

    def _note_first(self, event: TicketItem) -> None:
        self._first = event
        if self.prompt_tokens is None:
            self.prompt_tokens = _prompt_tokens(event)
        self._on_first()

    def resume(self, resumed: ResumedRequest) -> None:
        """Record the events that an earlier ticket for the request has delivered. They are not delivered
        again.
        """
        self.public_id, earlier = resumed.public_id, resumed.events
        tokens = [event for event in earlier if isinstance(event, protocol.Token)]
        self.tokens = len(tokens)
        if tokens:
            self.first_token_at = self.submitted_at
        if earlier:
            self._note_first(earlier[0])
        if earlier and isinstance(earlier[-1], LAST_EVENTS):
            self.outcome = "done"

    def deliver_to(self, put: Callable[[TicketItem], None]) -> None:
        """Call `put` with each event instead of keeping the event for `next`, beginning with the events that
        wait already.
        """
        while not self._events.empty():
            put(self._events.get_nowait())
        self._deliver = put

    def call_at_first_event(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the first event or error arrives, or at once if one has arrived already."""
        self._on_first = callback
        if self._first is not None:
            callback()

    def raise_failure(self) -> None:
        """If the request failed before any event, raise its error."""
        if isinstance(self._first, Exception):
            raise self._first

    async def next(self) -> TicketEvent:
        """Return the next event. Raises GatewayError if the request has failed, and ClientDisconnected if the
        client is gone.
        """
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def last(self) -> LastEvent:
        """Wait for the last event, skip the tokens before it, and return it. Raises GatewayError if the
        request has failed, and ClientDisconnected if the client is gone.
        """
        while not isinstance(event := await self.next(), LAST_EVENTS):
            pass
        return event

    def cancel(self) -> None:
        """Cancel the request. This does nothing if the request has ended."""
        if not self.ended:
            self._on_cancel(self)

    def ended_request(self, now: float) -> EndedRequest:
        """Return the facts that telemetry records about this request, which ended at `now`."""
        first_token_s = None if self.first_token_at is None else self.first_token_at - self.submitted_at
        return EndedRequest(
            self.public_id,
            self.dialect,
            self.request.model,
            self.outcome or "unknown",
            self.tokens,
            self.crashes,
            now - self.submitted_at,
            first_token_s,
        )


def _prompt_tokens(first: TicketEvent | Exception) -> int | None:
    """Return the length of the prompt in tokens if `first`, the first event of a request, is a token of a
    generation or its end (Done). Return None for any other event (such as an embedding), for an error, and
    for a token that does not contain the length.
    """
    if isinstance(first, protocol.Done):
        return first.usage.prompt_tokens
    return first.prompt_tokens if isinstance(first, protocol.Token) else None
