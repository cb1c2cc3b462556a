"""Handle the events of the current engine: pass each event of an answer to the `Ticket` of its request, from
which the handler of the HTTP request reads it, and count what is delivered.
"""

from __future__ import annotations

import logging

from mlx_server import protocol
from mlx_server.gateway.requests.request_actions import DispatcherParts, RequestActions
from mlx_server.gateway.requests.table.actions import CancelOnEngine
from mlx_server.gateway.requests.table.admission import Lane
from mlx_server.gateway.requests.table.request_lifecycle import TokenGap
from mlx_server.gateway.requests.ticket import LastEvent, Ticket
from mlx_server.gateway.telemetry import GATEWAY_ITSELF

log = logging.getLogger(__name__)


class EngineAnswers:
    """Handles the engine's events for the dispatcher. Times are monotonic seconds."""

    def __init__(self, parts: DispatcherParts, actions: RequestActions) -> None:
        self._table, self._tickets, self._engine = parts.table, parts.tickets, parts.engine
        self._loaded_models, self._telemetry = parts.loaded_models, parts.telemetry
        self._pauses, self._spans, self._clock = parts.pauses, parts.spans, parts.clock
        self._actions = actions

    def on_event(self, event: protocol.Event) -> None:
        """Handle one event of the current engine.

        An event that cannot be handled fails only its own request. Its exception must not reach the engine's
        link, because the link would then close and interrupt every other request.
        """
        try:
            self._handle(event)
        except Exception as error:
            log.exception("An event of the engine could not be handled (%s)", type(event).__name__)
            request_id: str = getattr(event, "id", None) or ""
            if request_id in self._tickets:
                message = (
                    f"The gateway could not handle the answer ({type(error).__name__}); its log has more."
                )
                self._actions.failed_on_engine(protocol.Failed(request_id, "engine_crashed", message))
                self._actions.carry_out([CancelOnEngine(request_id)])

    def _handle(self, event: protocol.Event) -> None:
        self._loaded_models.on_event(event)
        if isinstance(event, protocol.Unloaded) and event.damage:
            self._telemetry.emit("weights_damaged", event.damage, model=event.model)
        match event:
            case protocol.Token():
                self._on_token(event)
            case protocol.Accepted():
                self._on_accepted(event)
            case protocol.Alive():
                self._telemetry.of_engines.report(event)
            case protocol.Prefill(id=request_id, done=done):
                self._table.worked(request_id, 1.0 + done)
            case protocol.Loading(model=model, fraction=fraction):
                for ticket in self._tickets.of_model(model):
                    self._table.worked(ticket.id, fraction)
            case protocol.Done(reason="cancelled") | protocol.Failed(code="engine_unavailable"):
                self._on_returned(event.id)
            case protocol.Failed():
                self._actions.failed_on_engine(event)
            case protocol.Done() | protocol.Embedding() | protocol.Reranked():
                self._on_last(event.id, event)
            case protocol.Loaded(id=str(request_id)) | protocol.Unloaded(id=str(request_id)):
                self._on_last(request_id, event)
            case _:
                pass

    def _on_returned(self, request_id: str) -> None:
        """Park a request that an engine returns unfinished because the engine shuts down: the request waits
        for the next engine, which continues it.
        """
        now = self._clock.now()
        if self._table.returned_by_engine(request_id, now) and (ticket := self._tickets.get(request_id)):
            ticket.was_returned = True
            self._spans.engine_lost(request_id, ticket.tokens)
            if ticket.dialect != GATEWAY_ITSELF:
                self._pauses.begin(request_id, now)

    def _on_token(self, event: protocol.Token) -> None:
        ticket = self._tickets.get(event.id)
        if ticket is None:
            return
        try:
            is_new, actions = self._table.take_token(event.id, event.index, event.token)
        except TokenGap as gap:
            self._actions.failed_on_engine(
                protocol.Failed(event.id, "engine_crashed", f"The engine lost a token: {gap}.")
            )
            self._actions.carry_out([CancelOnEngine(event.id)])
            return
        if is_new:
            self._count_token(ticket, event, self._clock.now())
            ticket.put(event)
        self._actions.carry_out(actions)

    def _on_last(self, request_id: str, event: LastEvent) -> None:
        ticket = self._tickets.get(request_id)
        if ticket is None or not self._table.is_running(request_id):
            return
        actions = self._table.finished(request_id)
        self._pauses.complete(request_id, ticket.tokens, self._clock.now())
        if isinstance(event, protocol.Done | protocol.Embedding | protocol.Reranked):
            self._count_end(ticket, event)
        ticket.put(event)
        self._actions.carry_out(actions)
        self._actions.end(ticket, "done")

    def _on_accepted(self, event: protocol.Accepted) -> None:
        self._engine.answered(event.id)
        if ticket := self._tickets.get(event.id):
            ticket.is_read_for = False
            ticket.prompt_tokens = ticket.prompt_tokens or event.prompt_tokens
        self._engine.send_checks()

    def _count_token(self, ticket: Ticket, event: protocol.Token, now: float) -> None:
        """Count a token that a client receives. This runs for each token of each answer."""
        ticket.tokens += 1
        self._telemetry.delivered()
        self._telemetry.tokens += 1
        if ticket.first_token_at is None:
            ticket.first_token_at = now
            ticket.rate.sample(now, 1)
            self._telemetry.first_token(now - ticket.submitted_at)
            self._telemetry.prompt_tokens += event.prompt_tokens or 0
        self._pauses.end(ticket.id, ticket.tokens - 1, now)

    def _count_end(
        self, ticket: Ticket, last: protocol.Done | protocol.Embedding | protocol.Reranked
    ) -> None:
        """Count a complete answer. If it has no token (an embedding, scores, or `max_tokens: 0`), count the
        tokens of its prompt, too; otherwise they were counted with the answer's first token.
        """
        self._telemetry.delivered()
        if isinstance(last, protocol.Embedding | protocol.Reranked):
            self._telemetry.prompt_tokens += last.prompt_tokens
        elif ticket.first_token_at is None and ticket.request.lane is Lane.GENERATE:
            self._telemetry.prompt_tokens += last.usage.prompt_tokens
