"""What the gateway tells: one JSON object a line on stderr, and counters for `/metrics`."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, TextIO

from mlx_server.gateway.engine_events import EngineEvents
from mlx_server.gateway.ticket import Ticket
from vestal.supervision.event_stream import Event, EventStream

COMPONENT = "mlx_server"


class Telemetry:
    """The one event stream of this process, and the sums that `/metrics` shows."""

    def __init__(self, wall: Callable[[], float], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._events = EventStream(wall, self.write)
        self.engine_events = EngineEvents()
        self.requests: Counter[tuple[str, str]] = Counter()  # (dialect, outcome)
        self.tokens = 0
        self.request_s = 0.0
        self.first_token_s = 0.0
        self.first_tokens = 0
        self.engine_crashes = 0
        self.survived_crashes = 0
        self.pauses = 0
        self.pause_s = 0.0
        self.last_pause_s = 0.0

    def tell(self, event: str, cause: str = "", **fields: Any) -> None:
        self._events.emit(COMPONENT, event, cause, **fields)

    def relay(self, event: Event) -> None:
        """An event of the engine's supervisor, numbered into this stream."""
        self._events.emit(event.component, event.event, event.cause, **event.fields)

    def write(self, event: Event) -> None:
        print(json.dumps(event.as_json(), ensure_ascii=True, default=str), file=self._stream, flush=True)
        self.engine_events.take(event)

    def request_ended(self, ticket: Ticket, now: float) -> None:
        """One line a request."""
        total_s = now - ticket.submitted_at
        self.requests[ticket.dialect, ticket.outcome or "unknown"] += 1
        self.request_s += total_s
        fields: dict[str, Any] = {"id": ticket.id, "dialect": ticket.dialect, "model": ticket.request.model}
        fields |= {"outcome": ticket.outcome, "tokens": ticket.tokens, "ms": round(total_s * 1000, 1)}
        if ticket.first_token_at is not None:
            first_s = ticket.first_token_at - ticket.submitted_at
            self.first_tokens += 1
            self.first_token_s += first_s
            fields["first_token_ms"] = round(first_s * 1000, 1)
        if ticket.crashes:
            fields["crashes"] = ticket.crashes
            self.survived_crashes += ticket.outcome == "done"
        self.tell("request_finished", **fields)

    def stream_paused(self, seconds: float) -> None:
        """How long the engine was away from work in flight: from its loss to the next token."""
        self.pauses += 1
        self.pause_s += seconds
        self.last_pause_s = seconds


class LogToEvents(logging.Handler):
    """What libraries log becomes an event, so that a log has one format."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(logging.WARNING)
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            cause = f"{cause}: {record.exc_info[1]!r}"
        fields: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        self._telemetry.tell("logged", cause, **fields)
