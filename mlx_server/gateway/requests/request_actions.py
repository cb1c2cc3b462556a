"""Carry out the request table's decisions (send, cancel or fail a request), and end tickets."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlx_server import protocol
from mlx_server.gateway import errors
from mlx_server.gateway.requests.engine_sender import EngineSender
from mlx_server.gateway.requests.loaded_models import LoadedModelTracker
from mlx_server.gateway.requests.open_tickets import OpenTickets
from mlx_server.gateway.requests.pauses import MAX_IDS, Pauses
from mlx_server.gateway.requests.request_spans import RequestSpans
from mlx_server.gateway.requests.table.actions import Action, CancelOnEngine, FailRequest, SendToEngine
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.requests.ticket import Ticket
from mlx_server.gateway.telemetry import GATEWAY_ITSELF, Telemetry
from vestal.supervision import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DispatcherParts:
    """The objects that the dispatcher shares with `RequestActions` and `EngineAnswers`."""

    table: RequestTable
    tickets: OpenTickets
    engine: EngineSender
    loaded_models: LoadedModelTracker
    telemetry: Telemetry
    pauses: Pauses
    spans: RequestSpans
    clock: Clock


class RequestActions:
    """Carries out what the request table decides: sends requests to the engine, cancels them there, and fails
    them. It also ends tickets. A ticket is a submitted request as its handler sees it: the handler reads the
    request's events from it. A ticket that has ended gets no more events, and is counted in the metrics.
    """

    def __init__(self, parts: DispatcherParts) -> None:
        self._table, self._tickets, self._engine = parts.table, parts.tickets, parts.engine
        self._loaded_models, self._telemetry = parts.loaded_models, parts.telemetry
        self._pauses, self._spans, self._clock = parts.pauses, parts.spans, parts.clock

    def carry_out(self, actions: list[Action]) -> None:
        """Carry out `actions`, which the request table has decided on, in order. If requests of clients fail
        because no engine could finish them, emit one event about all of them.
        """
        lost: list[FailRequest] = []
        for action in actions:
            match action:
                case SendToEngine(request_id):
                    self._send_request(request_id)
                case CancelOnEngine(request_id):
                    self._engine.cancel(request_id)
                case FailRequest(request_id, code, message, retry_after_s):
                    if self._tickets[request_id].dialect != GATEWAY_ITSELF:
                        lost.append(action)
                    self.fail(self._tickets[request_id], errors.from_failure(code, message, retry_after_s))
        if lost:
            ids = [action.id for action in lost[:MAX_IDS]]
            self._telemetry.emit("requests_lost", lost[0].message, count=len(lost), ids=ids)

    def failed_on_engine(self, event: protocol.Failed) -> None:
        """End a request with the error in `event`, which says that the engine cannot run or finish the
        request. The event may also be the answer to an early check, with which the gateway has asked whether
        the engine can serve the request; then the request ends even if it does not run yet. Any other event
        about a request that does not run is ignored.
        """
        is_check = self._engine.answered(event.id)
        ticket = self._tickets.get(event.id)
        if ticket is not None and (is_check or self._table.is_running(event.id)):
            end = self._table.refused if is_check else self._table.finished
            self.carry_out(end(event.id))
            self.fail(ticket, errors.from_engine(event))
        if is_check:
            self._engine.send_checks()

    def fail(self, ticket: Ticket, error: errors.GatewayError) -> None:
        """End a ticket with an error for its client."""
        if ticket.dialect == GATEWAY_ITSELF:
            self._loaded_models.reload_failed(ticket.request.model)
        ticket.put(error)
        self.end(ticket, error.code)

    def end(self, ticket: Ticket, outcome: str) -> None:
        """Remove a ticket that has got its last event or its error, and count it in the metrics as one
        request with this `outcome`: `done`, `cancelled` or an error code. If an HTTP request has several
        tickets, each is counted.
        """
        ticket.outcome = outcome
        self._tickets.pop(ticket.id, None)
        self._engine.forget(ticket.id)
        self._pauses.forget(ticket.id)
        self._spans.ended(ticket.id, outcome, ticket.tokens, ticket.crashes)
        self._telemetry.request_ended(ticket.ended_request(self._clock.now()))

    def _send_request(self, request_id: str) -> None:
        """Send a request that the table has started. If sending fails, fail this request only."""
        request = self._table.get(request_id)
        emitted = request.emitted if request else []
        try:
            traceparent = self._spans.sent(request_id, len(emitted))
            resumed = request is not None and request.is_resumed
            self._engine.request(self._tickets[request_id], emitted, traceparent, resumed=resumed)
        except Exception as error:
            log.exception("Request %s could not be sent", request_id)
            message = (
                f"The request could not be passed to the engine ({type(error).__name__}); try again later."
            )
            self.failed_on_engine(protocol.Failed(request_id, "overloaded", message))
