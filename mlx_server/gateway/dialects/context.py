"""The parts of the gateway that the handlers of every dialect use."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection

from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.errors import BadRequest, GatewayError
from mlx_server.gateway.in_flight.client_names import client_name
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.request_spans import IncomingTrace
from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.sendable import SendableRequest
from mlx_server.gateway.requests.ticket import RequestOrigin, Ticket
from vestal.config import Config
from vestal.supervision import Clock
from vestal.tracing import HEADER


def _discard(event: str, cause: str = "", **fields: Any) -> None:
    """Discard the event."""


@dataclass(frozen=True)
class GatewayContext:
    """The settings and services of the gateway that the routes of a dialect use.

    `keeper` finds the stored answers of earlier requests; without one, answers are not stored. `emit` writes
    an event: its name, a sentence that explains it, and its fields.
    """

    config: Config
    clock: Clock
    dispatcher: Dispatcher
    installed_models: InstalledModels
    keeper: AnswerKeeper | None = None
    emit: Callable[..., None] = _discard

    @property
    def max_body_bytes(self) -> int:
        return self.config.mlx.max_body_bytes

    def random_for(self, http: HTTPConnection) -> random.Random:
        """Return the source of a request's random numbers. A resumed request draws the same numbers again."""
        kept = kept_answer_of(http.scope)
        return kept.random if kept else random.SystemRandom()

    def draw_seed(self, http: HTTPConnection) -> int:
        """Return a random seed for the sampling of the request `http`. The seed is used if the client
        specifies none. If the gateway resumes the request, it draws the same seed again.
        """
        return self.random_for(http).getrandbits(32)

    def created_s(self, http: HTTPConnection) -> float:
        """Return when a request was first accepted, in seconds since 1970. For a request whose answer is not
        stored, return the current time.
        """
        kept = kept_answer_of(http.scope)
        return kept.created_s if kept else self.clock.wall()

    def report_skipped(self, dialect: str, model: str, skipped: Mapping[str, Sequence[str]]) -> None:
        """Write an event that names what a client requested and this server leaves out; `skipped` may be
        `{"tools": ["web_search"]}`. The keys of `skipped` are `tools`, `parts`, `items` or `fields`, and
        become fields of the event; the values are the types of the tools, content parts or items, or the
        names of the body's fields. Without any value, no event is written.
        """
        named = {
            field: sorted({name[:80] for name in names})[:20] for field, names in skipped.items() if names
        }
        if named:
            cause = "this server has no use for them; the request was served without"
            self.emit("request_fields_skipped", cause, dialect=dialect, model=model, **named)

    def submit(
        self,
        request: SendableRequest,
        http: HTTPConnection,
        dialect: str,
        user: str | None = None,
        resumed: ResumedRequest | None = None,
    ) -> Ticket:
        """Submit one request to the engine on behalf of the HTTP client. Return the request's ticket, from
        which the events of the answer are read. Raises GatewayError if the request is refused.

        `user` is the end user that a body names; each end user counts as a separate client for fairness.
        `resumed` is given if the request continues an earlier one.
        """
        trace = IncomingTrace(_span_name(http), http.headers.get(HEADER))
        ticket = self.dispatcher.submit(request, _client_key(http, user), dialect, resumed, trace)
        if request_id_of(http) is None:
            http.state.request_id = ticket.public_id
        ticket.origin = self._origin(http, ticket)
        return ticket

    def _origin(self, http: HTTPConnection, ticket: Ticket) -> RequestOrigin:
        """Return the description of the client's request that a new ticket belongs to. The tickets of one
        HTTP request share one `RequestOrigin`; on a WebSocket, each turn has its own.
        """
        origin: RequestOrigin | None = getattr(http.state, "origin", None)
        if origin is None or http.scope["type"] == "websocket":
            kept = kept_answer_of(http.scope)
            age_s = max(0.0, self.clock.wall() - kept.created_s) if kept else 0.0
            remote = http.client.host if http.client else ""
            began_at = self.clock.now() - age_s
            origin = RequestOrigin(ticket.public_id, client_name(http.headers), remote, began_at)
            http.state.origin = origin
        return origin

    def check_answer_count(self, answers: int) -> None:
        """Raise BadRequest if one body asks for more answers than the server can run and queue together."""
        most = self.config.mlx.max_running + self.config.mlx.max_queued
        if answers > most:  # not a 503, because trying again later would not help
            message = f"{answers} answers are asked for at once, and this server takes {most}: ask for fewer."
            raise BadRequest("invalid_request", message, answers=answers, most=most)

    def generate(
        self,
        requests: Sequence[SendableRequest],
        http: HTTPConnection,
        dialect: str,
        user: str | None = None,
        *,
        outlives_client: bool = False,
    ) -> Answers:
        """Submit all `requests`, which serve the client's HTTP request `http`, and return their answers. If
        one of them is refused, for example because the queue is full, cancel those already submitted, and
        raise GatewayError.

        `dialect` names the API in metrics and traces. `user` is the end user that the body names, if any;
        each end user counts as a separate client for fairness. With `outlives_client`, stored answers are
        finished even if no client waits for them.
        """
        kept = kept_answer_of(http.scope)
        tickets: list[Ticket] = []
        try:
            for number, request in enumerate(requests):
                resumed = kept.resumed(number) if kept else None
                tickets.append(self.submit(request, http, dialect, user, resumed))
        except GatewayError:
            for ticket in tickets:
                ticket.cancel()
            raise
        if kept is None:
            return Answers(tickets, self.clock)
        kept.accept(len(tickets), outlives_client=outlives_client)
        return Answers(
            tickets,
            self.clock,
            earlier=kept.history,
            record=kept.record,
            needs_keep_alives=lambda: kept.needs_keep_alives,
        )


def request_id_of(http: HTTPConnection) -> str | None:
    """Return the id by which the client knows its HTTP request: the id of the first ticket (a request to the
    engine) that was submitted for it; None if no ticket has been submitted.
    """
    return getattr(http.state, "request_id", None)


def _span_name(http: HTTPConnection) -> str:
    return f"{http.scope.get('method', 'GET')} {http.scope['path']}"


def _client_key(http: HTTPConnection, user: str | None) -> str:
    """Return the key that distinguishes clients for fairness: address, digest of the API key, and end
    user.
    """
    key = http.headers.get("authorization", "")
    digest = hashlib.sha256(key.encode()).hexdigest()[:8] if key else ""
    address = http.client.host if http.client else ""
    return f"{address}|{digest}|{user or ''}"
