"""Send requests, checks and cancellations to the present engine, as far as it takes them by now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mlx_server import protocol
from mlx_server.gateway.requests.early_checks import EarlyChecks
from mlx_server.gateway.requests.loaded_models import LoadedModelTracker
from mlx_server.gateway.requests.open_tickets import OpenTickets
from mlx_server.gateway.requests.ticket import Ticket

log = logging.getLogger(__name__)

Send = Callable[[bytes], None]
"""Sends one frame to the present engine."""


class EngineSender:
    """The line to the present engine. What is sent while there is none is dropped: the request table has the
    request sent again to the next engine.
    """

    def __init__(self, tickets: OpenTickets, loaded_models: LoadedModelTracker) -> None:
        self._tickets = tickets
        self._loaded_models = loaded_models
        self._checks = EarlyChecks()
        self._send: Send | None = None  # once the engine takes requests
        self._send_check: Send | None = None  # the same, from its first sign of life on

    def engine_connected(self, send: Send) -> None:
        """Have a new engine check what waits. It need not be ready for that."""
        self._send_check = send
        self.send_checks()

    def engine_takes_requests(self, send: Send) -> None:
        self._send = send

    def engine_lost(self) -> None:
        self._send = self._send_check = None
        self._checks.engine_lost()
        for ticket in self._tickets.values():
            ticket.is_read_for = False

    def request(self, ticket: Ticket, emitted: Sequence[int], traceparent: str | None) -> None:
        """Send a request with the tokens that its client has, and the span that it belongs to.

        Raises any exception of the encoding, such as MemoryError: the frame of a large request is as large
        again.
        """
        self._send_frame(ticket.request.frame(ticket.id, emitted, traceparent))

    def cancel(self, request_id: str) -> None:
        """Have the engine drop a request."""
        self._send_frame(protocol.encode(protocol.Cancel(request_id)))

    def _send_frame(self, frame: bytes) -> None:
        if self._send is not None:
            self._send(frame)

    # --- checks ---

    def check(self, request_id: str) -> None:
        """Have a request checked that waits."""
        self._checks.add(request_id)
        self.send_checks()

    def answered(self, request_id: str) -> bool:
        """Record the answer to a check. Return False if none was expected."""
        return self._checks.answered(request_id)

    def forget(self, request_id: str) -> None:
        """Do not check a request that has ended."""
        self._checks.forget(request_id)

    def send_checks(self) -> None:
        """Send the checks that are due, if an engine takes them."""
        while self._send_check is not None and (due := self._checks.take()):
            for request_id in due:
                ticket = self._tickets[request_id]
                try:
                    self._send_check(ticket.request.check_frame(request_id))
                    is_loaded = ticket.request.model in self._loaded_models.names
                    ticket.is_read_for = self._send is not None and not is_loaded
                except Exception:  # such as MemoryError: the request then runs unchecked
                    log.exception("Request %s could not be sent for a check", request_id)
                    self._checks.forget(request_id)
