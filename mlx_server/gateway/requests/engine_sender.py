"""Send messages to the current engine: requests, cancellations, and checks. A check asks the engine whether
it can serve a request that still waits for its turn.
"""

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
"""A function that sends one frame to the current engine."""


class EngineSender:
    """Sends requests, cancellations and checks to the current engine. A check asks the engine whether it can
    serve a request that still waits for its turn. Without an engine, requests and cancellations are dropped,
    because the request table has the unfinished requests sent again to the next engine; checks wait for that
    engine.

    `tickets` are the unfinished requests to the engine, by their ids. `loaded_models` knows which models the
    engine has loaded. The check of a request whose model is not loaded takes longer, which is recorded in the
    request's ticket (`is_read_for`).
    """

    def __init__(self, tickets: OpenTickets, loaded_models: LoadedModelTracker) -> None:
        self._tickets = tickets
        self._loaded_models = loaded_models
        self._checks = EarlyChecks()
        self._send: Send | None = None  # set once the engine accepts requests
        self._send_check: Send | None = None  # set from the engine's first message on

    def engine_connected(self, send: Send) -> None:
        """Ask a new engine, by one message for each request, whether it can serve the waiting requests. The
        engine can answer before it is ready to run requests. `send` sends it one frame.
        """
        self._send_check = send
        self.send_checks()

    def engine_takes_requests(self, send: Send) -> None:
        self._send = send

    def engine_lost(self) -> None:
        self._send = self._send_check = None
        self._checks.engine_lost()
        for ticket in self._tickets.values():
            ticket.is_read_for = False

    def request(
        self, ticket: Ticket, emitted: Sequence[int], traceparent: str | None, *, resumed: bool
    ) -> None:
        """Send a request. `emitted` are the ids of the tokens that its client already has, and `traceparent`
        is the trace span that the request belongs to. `resumed` says that an engine has run the request
        before and was lost.

        Raises the exceptions of the encoding, such as MemoryError if there is no memory for the frame, which
        is a second copy of the request.
        """
        frame = ticket.request.frame(
            ticket.id, emitted, traceparent, resumed=resumed, created_s=ticket.created_s
        )
        self._send_frame(frame)

    def cancel(self, request_id: str) -> None:
        """Tell the engine to drop a request."""
        self._send_frame(protocol.encode(protocol.Cancel(request_id)))

    def _send_frame(self, frame: bytes) -> None:
        if self._send is not None:
            self._send(frame)

    # --- checks ---

    def check(self, request_id: str) -> None:
        """Have an engine check whether it can serve a waiting request: now, or as soon as an engine is
        connected and has answered earlier checks. If the engine answers that it cannot, the request fails at
        once.
        """
        self._checks.add(request_id)
        self.send_checks()

    def answered(self, request_id: str) -> bool:
        """Record that the engine has answered whether it can serve the waiting request `request_id`. Return
        False if no such answer was expected.
        """
        return self._checks.answered(request_id)

    def forget(self, request_id: str) -> None:
        """Drop the check of whether an engine can serve this request, because the request has ended. Do
        nothing if the request has no such check.
        """
        self._checks.forget(request_id)

    def send_checks(self) -> None:
        """Have the engine check whether it can serve the waiting requests: send it as many of these requests
        as it may check at once. A request that cannot be sent runs without a check. Do nothing if no engine
        is connected.
        """
        while self._send_check is not None and (due := self._checks.take()):
            for request_id in due:
                ticket = self._tickets[request_id]
                try:
                    self._send_check(ticket.request.check_frame(request_id))
                    is_loaded = ticket.request.model in self._loaded_models.names
                    ticket.is_read_for = self._send is not None and not is_loaded
                except Exception:  # such as a MemoryError; the request then runs without a check
                    log.exception("Request %s could not be sent for a check", request_id)
                    self._checks.forget(request_id)
