"""Count what is delivered to clients: tokens, first tokens, prompt tokens, and pauses of streams."""

from __future__ import annotations

from mlx_server import protocol
from mlx_server.gateway.requests.pauses import Pauses
from mlx_server.gateway.requests.table.admission import Lane
from mlx_server.gateway.requests.ticket import Ticket
from mlx_server.gateway.telemetry import Telemetry


class DeliveryCounts:
    """Adds to the counts of each ticket and of the telemetry. Times are monotonic seconds."""

    def __init__(self, telemetry: Telemetry, pauses: Pauses) -> None:
        self._telemetry = telemetry
        self._pauses = pauses

    def token(self, ticket: Ticket, event: protocol.Token, now: float) -> None:
        """Count a new token. This runs for each token of each answer."""
        ticket.tokens += 1
        self._telemetry.delivered()
        self._telemetry.tokens += 1
        if ticket.first_token_at is None:
            ticket.first_token_at = now
            ticket.rate.sample(now, 1)
            self._telemetry.first_token(now - ticket.submitted_at)
            self._telemetry.prompt_tokens += event.prompt_tokens or 0
        self._pauses.end(ticket.id, ticket.tokens - 1, now)

    def end(self, ticket: Ticket, last: protocol.Done | protocol.Embedding) -> None:
        """Count an answer that is complete, and the prompt of one without a token: an embedding, or
        `max_tokens: 0`.
        """
        self._telemetry.delivered()
        if isinstance(last, protocol.Embedding):
            self._telemetry.prompt_tokens += last.prompt_tokens
        elif ticket.first_token_at is None and ticket.request.lane is Lane.GENERATE:
            self._telemetry.prompt_tokens += last.usage.prompt_tokens
