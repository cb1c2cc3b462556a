"""Hold the tickets of the requests that run or wait, until the requests end. A ticket is one request to the
engine, from which a handler reads the events.
"""

from __future__ import annotations

from mlx_server.gateway.requests.ticket import Ticket
from mlx_server.gateway.telemetry import GATEWAY_ITSELF


class OpenTickets(dict[str, Ticket]):
    """The tickets that have not ended, by their ids, the oldest first."""

    def of_clients(self) -> list[Ticket]:
        """Return the tickets of clients, which excludes tickets of the gateway's own requests."""
        return [ticket for ticket in self.values() if ticket.dialect != GATEWAY_ITSELF]

    def of_request(self, request_id: str) -> list[Ticket]:
        """Return the tickets of the HTTP request with this x-request-id."""
        return [ticket for ticket in self.values() if ticket.origin and ticket.origin.id == request_id]

    def of_model(self, model: str) -> list[Ticket]:
        """Return the tickets whose requests are for this model."""
        return [ticket for ticket in self.values() if ticket.request.model == model]

    def sample_rates(self, now: float) -> None:
        """Record the token count at `now` of each request that has received tokens, for the computation of
        its tokens per second.
        """
        for ticket in self.values():
            if ticket.first_token_at is not None:
                ticket.rate.sample(now, ticket.tokens)
