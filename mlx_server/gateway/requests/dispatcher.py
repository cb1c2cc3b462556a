"""Between clients and engine: carries out what the request table decides, and is its only caller.

Handlers submit requests and read their tickets; the engine's link brings events; `tick` brings time. All
of it happens on one event loop and nothing here awaits, so every event is handled whole.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable

from mlx_server import protocol
from mlx_server.gateway import errors
from mlx_server.gateway.requests.generation_request import LoadRequest, Request
from mlx_server.gateway.requests.loaded_models import ModelsToReload
from mlx_server.gateway.requests.request_lifecycle import RequestPhase, TokenGap
from mlx_server.gateway.requests.request_table import Action, QueueFull, Refuse, RequestTable, Start, Withdraw
from mlx_server.gateway.requests.ticket import ClientLeft, Ticket
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import Clock

OURSELVES = "gateway"
"""The client in whose name models are loaded again."""

Send = Callable[[protocol.Op], None]


class Dispatcher:
    """Owner of the tickets. `refusing` is set while no new request is taken (draining, no engine to come)."""

    def __init__(self, table: RequestTable, clock: Clock, telemetry: Telemetry) -> None:
        self.models = ModelsToReload()
        self.refusing: errors.Unavailable | None = None
        self._table = table
        self._clock = clock
        self._telemetry = telemetry
        self._tickets: dict[str, Ticket] = {}
        self._send: Send | None = None
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._lost_at: dict[str, float] = {}

    # --- clients ---

    def submit(self, request: Request, client: str, dialect: str) -> Ticket:
        """Takes the request in. Raises Unavailable: overloaded, draining, or there will be no engine."""
        if self.refusing:
            raise self.refusing
        ticket = Ticket(
            f"{self._prefix}-{next(self._numbers)}", request, dialect, self._clock.now(), self._cancel
        )
        self._tickets[ticket.id] = ticket
        try:
            now = ticket.submitted_at
            actions = self._table.submit(ticket.id, client, request.lane, now, request.model)
        except QueueFull as full:
            error = errors.Unavailable(
                "overloaded", f"{full}: the server is full; try again later", retry_after_s=5
            )
            self._settle(ticket, error.code)
            raise error from full
        self._do(actions)
        return ticket

    def _cancel(self, ticket: Ticket) -> None:
        actions = self._table.cancel(ticket.id)
        ticket.put(ClientLeft())
        self._settle(ticket, "cancelled")
        self._do(actions)

    def count(self, phase: RequestPhase) -> int:
        return self._table.count(phase)

    @property
    def idle(self) -> bool:
        """Whether no client waits for anything."""
        return all(ticket.dialect == OURSELVES for ticket in self._tickets.values())

    @property
    def draining(self) -> bool:
        return self.refusing is not None and self.refusing.code == "draining"

    def drain(self) -> None:
        """Nothing new is taken from here on."""
        self.refusing = errors.Unavailable("draining", "the server is stopping; try again in a moment")

    def cut_off(self, message: str) -> None:
        """Fails all that is not finished."""
        for ticket in list(self._tickets.values()):
            self._do(self._table.cancel(ticket.id))
            if not ticket.ended:
                self._fail(ticket, errors.Unavailable("draining", message))

    # --- the engine ---

    def model_came(self, send: Send, model: str) -> None:
        """An engine on its way to being ready has loaded `model`: what was parked with it goes on."""
        self._send = send
        self._do(self._table.model_came(model))

    def engine_came(self, send: Send, loaded: Iterable[str]) -> None:
        """An engine is ready: what was parked goes on, then what was loaded is loaded again."""
        self._send = send
        self.refusing = (
            None if self.refusing and self.refusing.code == "engine_unavailable" else self.refusing
        )
        self._do(self._table.engine_came())
        present = {*loaded, *(t.request.model for t in self._tickets.values())}  # those load by themselves
        for model, keep_alive_s in self.models.to_reload(present):
            if not self.refusing:
                self.submit(LoadRequest(model, keep_alive_s), OURSELVES, OURSELVES)

    def engine_left(self, blame: bool) -> None:
        """The engine's link has closed and all it sent has been read; `blame`: nobody asked it to end."""
        now = self._clock.now()
        self._send = None
        self.models.engine_lost()
        for ticket in self._tickets.values():
            if self._table.is_running(ticket.id):
                ticket.crashes += 1
                self._lost_at[ticket.id] = now
        parked = len(self._lost_at)
        self._do(self._table.engine_left(now, blame))
        if parked:
            self._telemetry.emit("requests_parked", count=parked)

    def give_up(self, message: str) -> None:
        """No engine will come by itself any more."""
        if not self.draining:
            self.refusing = errors.Unavailable("engine_unavailable", message, retry_after_s=60)
        self._do(self._table.give_up(message))

    def tick(self) -> None:
        """Time has passed."""
        self._do(self._table.tick(self._clock.now()))

    def on_event(self, event: protocol.Event) -> None:
        """One event of the present engine."""
        self.models.on_event(event)
        match event:
            case protocol.Token():
                self._on_token(event)
            case protocol.Prefill(id=request_id, done=done):
                self._table.worked(request_id, 1.0 + done)
            case protocol.Loading(model=model, fraction=fraction):
                for ticket in self._tickets.values():
                    if ticket.request.model == model:
                        self._table.worked(ticket.id, fraction)
            case protocol.Done(reason="cancelled") | protocol.Failed(code="engine_unavailable"):
                self._on_handed_back(event.id)
            case protocol.Failed():
                self._on_failed(event)
            case protocol.Done() | protocol.Embedding():
                self._on_last(event.id, event)
            case protocol.Loaded(id=str(request_id)) | protocol.Unloaded(id=str(request_id)):
                self._on_last(request_id, event)
            case _:
                pass

    def _on_handed_back(self, request_id: str) -> None:
        """An engine that is told to end returns what it will not finish; the next one goes on with it."""
        if self._table.handed_back(request_id, self._clock.now()):
            self._lost_at.setdefault(request_id, self._clock.now())

    def _on_token(self, event: protocol.Token) -> None:
        ticket = self._tickets.get(event.id)
        if ticket is None:
            return
        try:
            fresh, actions = self._table.token(event.id, event.index, event.token)
        except TokenGap as gap:
            self._on_failed(protocol.Failed(event.id, "engine_crashed", f"the engine lost a token: {gap}"))
            self._do([Withdraw(event.id)])
            return
        if fresh:
            self._count_token(ticket)
            ticket.put(event)
        self._do(actions)

    def _count_token(self, ticket: Ticket) -> None:
        now = self._clock.now()
        ticket.tokens += 1
        self._telemetry.tokens += 1
        if ticket.first_token_at is None:
            ticket.first_token_at = now
        lost_at = self._lost_at.pop(ticket.id, None)
        if lost_at is not None:
            self._telemetry.stream_paused(now - lost_at)
            ms = round((now - lost_at) * 1000, 1)
            self._telemetry.emit("request_resumed", id=ticket.id, emitted=ticket.tokens - 1, paused_ms=ms)

    def _on_last(
        self, request_id: str, event: protocol.Done | protocol.Embedding | protocol.Loaded | protocol.Unloaded
    ) -> None:
        ticket = self._tickets.get(request_id)
        if ticket is None or not self._table.is_running(request_id):
            return
        actions = self._table.finished(request_id)
        ticket.put(event)
        self._settle(ticket, "done")
        self._do(actions)

    def _on_failed(self, event: protocol.Failed) -> None:
        ticket = self._tickets.get(event.id)
        if ticket is None or not self._table.is_running(event.id):
            return
        actions = self._table.finished(event.id)
        self._fail(ticket, errors.from_engine(event))
        self._do(actions)

    # --- carrying out ---

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(request_id):
                    life = self._table.life(request_id)
                    emitted = life.emitted if life else []
                    self._tell_engine(self._tickets[request_id].request.operation(request_id, emitted))
                case Withdraw(request_id):
                    self._tell_engine(protocol.Cancel(request_id))
                case Refuse(request_id, code, message):
                    self._fail(self._tickets[request_id], errors.from_code(code, message))

    def _tell_engine(self, operation: protocol.Op) -> None:
        if self._send is not None:
            self._send(operation)

    def _fail(self, ticket: Ticket, error: errors.GatewayError) -> None:
        if ticket.dialect == OURSELVES:
            self.models.forget(ticket.request.model)
        ticket.put(error)
        self._settle(ticket, error.code)

    def _settle(self, ticket: Ticket, outcome: str) -> None:
        ticket.outcome = outcome
        self._tickets.pop(ticket.id, None)
        self._lost_at.pop(ticket.id, None)
        self._telemetry.request_ended(ticket.ended_request(self._clock.now()))
