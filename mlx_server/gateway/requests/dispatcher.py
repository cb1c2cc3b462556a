"""Connect clients with the engine: report events to the request table, and have its decisions carried out.

Handlers submit requests and read their tickets. The engine's session reports the engine's events, and `tick`
reports that time has passed. No other code calls the request table. Everything runs on one event loop, and no
method here awaits anything, so that each call is completed before the next one begins.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Container, Iterable, Iterator

from mlx_server import protocol
from mlx_server.gateway import errors
from mlx_server.gateway.requests.engine_answers import EngineAnswers
from mlx_server.gateway.requests.engine_sender import EngineSender, Send
from mlx_server.gateway.requests.loaded_models import LoadedModelTracker
from mlx_server.gateway.requests.open_tickets import OpenTickets
from mlx_server.gateway.requests.pauses import Pauses
from mlx_server.gateway.requests.request_actions import DispatcherParts, RequestActions
from mlx_server.gateway.requests.request_spans import IncomingTrace, RequestSpans
from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.sendable import SendableRequest, sendable
from mlx_server.gateway.requests.table.admission import Lane, QueueFull
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket, TicketItem
from mlx_server.gateway.telemetry import GATEWAY_ITSELF, Telemetry
from vestal.supervision import Clock

OVERLOADED_RETRY_S, NO_ENGINE_RETRY_S = 5, 60


class Dispatcher:
    """Accepts requests, and holds a ticket for each until it ends. A ticket is one request to the engine,
    from which a handler reads the events.

    The attribute `refusing` is the error for every new request while the gateway accepts none, because it
    drains or because no engine will start; else None. The attribute `trial_at` is a function. It returns the
    monotonic time, perhaps a past one, at which a circuit breaker lets the next engine start, or None if no
    breaker is open. That time decides how long requests wait, and when refused clients should try again.
    """

    def __init__(
        self,
        table: RequestTable,
        clock: Clock,
        telemetry: Telemetry,
        spans: RequestSpans | None = None,
    ) -> None:
        self.loaded_models = LoadedModelTracker()
        self.refusing: errors.Unavailable | None = None
        self.trial_at: Callable[[], float | None] = lambda: None
        self._table = table
        self._clock = clock
        self._telemetry = telemetry
        self._tickets = OpenTickets()
        self._engine = EngineSender(self._tickets, self.loaded_models)
        self._id_prefix = secrets.token_hex(4)
        self._id_numbers = itertools.count(1)
        self._pauses = Pauses(telemetry)
        self._spans = spans or RequestSpans(None, clock.wall)
        parts = DispatcherParts(
            table=table,
            tickets=self._tickets,
            engine=self._engine,
            loaded_models=self.loaded_models,
            telemetry=telemetry,
            pauses=self._pauses,
            spans=self._spans,
            clock=clock,
        )
        self._actions = RequestActions(parts)
        self._answers = EngineAnswers(parts, self._actions)

    @property
    def max_running(self) -> int:
        """Return how many generations may run at once."""
        return self._table.max_running

    # --- clients ---

    def submit(
        self,
        request: SendableRequest,
        client: str,
        dialect: str,
        resumed: ResumedRequest | None = None,
        trace: IncomingTrace | None = None,
    ) -> Ticket:
        """Accept a request and return its ticket. Raises Unavailable if the queue is full, the gateway
        drains, or no engine will start in time.

        `client` is any text that identifies the client; slots are shared fairly between clients. `dialect` is
        the name of the API that the client uses, for metrics and traces, or GATEWAY_ITSELF for a request of
        the gateway. `trace` names the request's trace span and the span that it belongs to; with None, no
        span is recorded.

        `resumed` holds the request's ids and the events that its client has received before, after which the
        request continues; without it, the request gets a new id. If `resumed.was_accepted` is True, because a
        gateway has accepted the request before, the request is not refused for any of these reasons.
        """
        error = self.refusing or self.engine_too_late()
        if error and not (resumed and resumed.was_accepted):
            raise error
        request_id = resumed.id if resumed else self.new_request_id()
        now = self._clock.now()
        ticket = Ticket(request_id, request, dialect, now, self._cancel)
        ticket.created_s = resumed.created_s if resumed else self._clock.wall()
        if resumed:
            ticket.resume(resumed)
            if ticket.ended:
                return ticket
        self._tickets[request_id] = ticket
        self._spans.began(request_id, trace, dialect, request.model)
        try:
            actions = self._table.submit(request_id, client, request.lane, now, request.model, resumed)
        except QueueFull as full:
            message = f"The server is full ({full}); try again later."
            error = errors.Unavailable("overloaded", message, retry_after_s=OVERLOADED_RETRY_S)
            self._actions.end(ticket, error.code)
            raise error from full
        self._actions.carry_out(actions)
        if not ticket.ended and self._may_wait(ticket):
            self._engine.check(request_id)
        return ticket

    def _may_wait(self, ticket: Ticket) -> bool:
        """Return whether the ticket's request is a generation that the engine might not begin at once,
        because it was not sent to the engine yet, because other generations run, or because its model is not
        loaded. The caller then has an engine check the request beforehand, so that the client soon learns
        whether the request can be served.
        """
        if ticket.request.lane is not Lane.GENERATE:
            return False
        is_alone = self._table.count(RequestPhase.RUNNING, Lane.GENERATE) <= 1
        is_loaded = ticket.request.model in self.loaded_models.names
        return not (self._table.is_running(ticket.id) and is_alone and is_loaded)

    def new_request_id(self) -> str:
        """Return an id that is unique among the requests of this gateway and of others."""
        return f"{self._id_prefix}-{next(self._id_numbers)}"

    def engine_too_late(self) -> errors.GatewayError | None:
        """Return the error for new requests if the next engine will start too late for them; else None."""
        late = self._table.refusal(self._clock.now(), self.trial_at())
        return errors.from_failure(late.code, late.message, late.retry_after_s) if late else None

    def _cancel(self, ticket: Ticket) -> None:
        self._end_early(ticket, ClientDisconnected())

    def cancel(self, request_id: str) -> bool:
        """Cancel the HTTP request with this x-request-id. All its tickets (one for each request that it makes
        to the engine) have ended when this method returns. The client gets an error, unless it has
        disconnected. Return False if no such request is unfinished.
        """
        of_request = self._tickets.of_request(request_id)
        for ticket in of_request:
            if not ticket.ended:
                self._end_early(ticket, errors.RequestCancelled())
        return bool(of_request)

    def _end_early(self, ticket: Ticket, why: TicketItem) -> None:
        actions = self._table.cancel(ticket.id)
        ticket.put(why)
        self._actions.end(ticket, "cancelled")
        self._actions.carry_out(actions)

    def in_flight(self) -> Iterator[tuple[Ticket, RequestPhase]]:
        """Yield (ticket, phase) for each unfinished request to the engine that a client has caused, the
        oldest first.
        """
        for ticket in self._tickets.of_clients():
            if (request := self._table.get(ticket.id)) is not None:
                yield ticket, request.phase

    def count(self, phase: RequestPhase) -> int:
        """Return how many requests are in the phase."""
        return self._table.count(phase)

    # --- the gateway's shutdown ---

    @property
    def idle(self) -> bool:
        """Return whether no client's request runs or waits."""
        return not self._tickets.of_clients()

    def has_others_than(self, request_ids: Container[str]) -> bool:
        """Return whether any client's request runs or waits whose id is not in `request_ids`."""
        return any(ticket.id not in request_ids for ticket in self._tickets.of_clients())

    @property
    def draining(self) -> bool:
        return self.refusing is not None and self.refusing.code == "draining"

    def drain(self) -> None:
        """Refuse new requests from now on. Accepted requests continue."""
        self.refusing = errors.Unavailable("draining", "The server is stopping; try again in a moment.")

    def fail_unfinished(self, message: str) -> None:
        """Fail every request that has not ended, with `message` for its client."""
        for ticket in list(self._tickets.values()):
            self._actions.carry_out(self._table.cancel(ticket.id))
            if not ticket.ended:
                self._actions.fail(ticket, errors.Unavailable("draining", message))

    # --- engines that start and die ---

    def engine_connected(self, send: Send) -> None:
        """Have a new engine check whether it can serve the requests that wait. It can do so before it is
        ready to run requests. `send` sends the engine one frame.
        """
        self._engine.engine_connected(send)

    def model_loaded_early(self, send: Send, model: str) -> None:
        """Continue the parked requests for `model` on a starting engine, which has loaded this model before
        it is ready for others. Parked requests are those whose engine died or was replaced; those that may
        run only alone stay parked. `send` sends the engine one frame.
        """
        self._engine.engine_takes_requests(send)
        self._actions.carry_out(self._table.model_loaded_early(model))

    def engine_ready(self, send: Send, loaded: Iterable[str]) -> None:
        """Use a new engine, which is ready for any model: continue the parked requests (those whose engine
        died or was replaced), start queued ones, and load the models that earlier engines had loaded. `send`
        sends the engine one frame. `loaded` are the models that the engine has loaded already. A model that
        an unfinished request loads or unloads is left to that request.
        """
        self._engine.engine_takes_requests(send)
        if self.refusing and self.refusing.code == "engine_unavailable":
            self.refusing = None
        self._actions.carry_out(self._table.engine_ready())
        requests = [ticket.request for ticket in self._tickets.values()]
        controlled = {request.model for request in requests if request.loads_or_unloads}
        for load in self.loaded_models.to_reload({*loaded, *(request.model for request in requests)}):
            if load.model in controlled:  # an unfinished request loads or unloads it
                continue
            try:
                self.submit(sendable(load), GATEWAY_ITSELF, GATEWAY_ITSELF)
            except errors.GatewayError:
                return  # the queue is full, or the gateway drains: a model is loaded when it is used again

    def engine_lost(self) -> None:
        """Park the requests that ran on an engine whose link has closed: they wait for the next engine, which
        continues them. All events of the lost engine must have been handled before.
        """
        now = self._clock.now()
        self._engine.engine_lost()
        self.loaded_models.engine_lost()
        self._telemetry.of_engines.engine_lost()
        for ticket in self._tickets.values():
            if self._table.is_running(ticket.id):
                ticket.crashes += 1
                self._spans.engine_lost(ticket.id, ticket.tokens)
                if ticket.dialect != GATEWAY_ITSELF:
                    self._pauses.begin(ticket.id, now)
        self._table.engine_lost(now)
        self._pauses.report_parked()

    def engine_died(self, death: EngineDeath) -> None:
        """Fail those requests of the dead engine that may not continue after this kind of death, as
        `crash_policy` decides. The others stay parked: they wait for the next engine, which continues them.

        An engine that the gateway ends because it hangs may wake up and return its requests. For them, this
        death counts like one without warning.
        """
        for ticket in self._tickets.values():
            ticket.crashes += ticket.was_returned and death is not EngineDeath.PLANNED
            ticket.was_returned = False
        self._actions.carry_out(self._table.engine_died(death))

    def give_up(self, message: str) -> None:
        """Fail the waiting requests and refuse new ones with `message`, because no engine will start without
        help.
        """
        if not self.draining:
            self.refusing = errors.Unavailable("engine_unavailable", message, retry_after_s=NO_ENGINE_RETRY_S)
        self._actions.carry_out(self._table.give_up(message))

    def tick(self) -> None:
        """Fail the requests that have waited too long for an engine. Record how many tokens each request has
        received so far, from which its tokens per second are computed. This must be called every half second.
        """
        now = self._clock.now()
        self._tickets.sample_rates(now)
        self._actions.carry_out(self._table.tick(now, self.trial_at()))

    def on_event(self, event: protocol.Event) -> None:
        """Handle one event of the current engine."""
        self._answers.on_event(event)
