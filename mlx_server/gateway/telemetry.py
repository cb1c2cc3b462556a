"""What the gateway tells: one JSON object a line on stderr, and counters for `/metrics`."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from mlx_server.gateway.engine_events import EngineEvents
from vestal.supervision.event_stream import Event, EventStream

COMPONENT = "mlx_server"


@dataclass(frozen=True)
class EndedRequest:
    """What is known of a request at its end. Times in seconds from its arrival; None: no token came."""

    id: str
    dialect: str
    model: str
    outcome: str
    tokens: int
    crashes: int
    total_s: float
    first_token_s: float | None


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

    def emit(self, event: str, cause: str = "", **fields: Any) -> None:
        self._events.emit(COMPONENT, event, cause, **fields)

    def relay(self, event: Event) -> None:
        """An event of the engine's supervisor, numbered into this stream."""
        self._events.emit(event.component, event.event, event.cause, **event.fields)

    def write(self, event: Event) -> None:
        print(json.dumps(event.as_json(), ensure_ascii=True, default=str), file=self._stream, flush=True)
        self.engine_events.take(event)

    def request_ended(self, request: EndedRequest) -> None:
        """Count the request, and write one line about it."""
        self.requests[request.dialect, request.outcome] += 1
        self.request_s += request.total_s
        fields: dict[str, Any] = {"id": request.id, "dialect": request.dialect, "model": request.model}
        fields |= {"outcome": request.outcome, "tokens": request.tokens}
        fields["ms"] = round(request.total_s * 1000, 1)
        if request.first_token_s is not None:
            self.first_tokens += 1
            self.first_token_s += request.first_token_s
            fields["first_token_ms"] = round(request.first_token_s * 1000, 1)
        if request.crashes:
            fields["crashes"] = request.crashes
            self.survived_crashes += request.outcome == "done"
        self.emit("request_finished", **fields)

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
        self._telemetry.emit("logged", cause, **fields)
