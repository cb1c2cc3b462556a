"""The trace spans of requests, from arrival to end, with waits, engine crashes and resumptions as events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vestal.tracing.tracer import Span, Tracer


@dataclass(frozen=True)
class IncomingTrace:
    """The trace data of an HTTP request: the span's name, such as `POST /api/chat`, and the value of the
    header `traceparent`, or None.
    """

    name: str
    traceparent: str | None = None


@dataclass
class _RequestSpan:
    span: Span
    began_at: float
    was_sent: bool = False
    is_lost: bool = False


class RequestSpans:
    """Records the spans of the unfinished requests. Without a tracer, every method does nothing."""

    def __init__(self, tracer: Tracer | None, wall: Callable[[], float]) -> None:
        self._tracer, self._wall = tracer, wall
        self._spans: dict[str, _RequestSpan] = {}

    def began(self, request_id: str, trace: IncomingTrace | None, dialect: str, model: str) -> None:
        """Begin the span of a request. If `trace` is None, the request is the gateway's own, and gets no
        span.
        """
        if self._tracer is None or trace is None:
            return
        about = {"vestal.request": request_id, "vestal.dialect": dialect, "gen_ai.request.model": model}
        span = self._tracer.start(trace.name, trace.traceparent, serves=True, attributes=about)
        self._spans[request_id] = _RequestSpan(span, self._wall())

    def sent(self, request_id: str, tokens: int) -> str | None:
        """Record that a request is sent to an engine, and return the `traceparent` for that engine; None if
        the request has no span. `tokens` is how many tokens the client already has.
        """
        if self._tracer is None or (known := self._spans.get(request_id)) is None:
            return None
        parent = known.span.traceparent
        if not known.was_sent:
            known.was_sent = True
            self._tracer.record("queue wait in the gateway", parent, known.began_at, self._wall())
        elif known.is_lost:
            known.span.event("resumed", {"vestal.tokens": tokens})
        known.is_lost = False
        return parent

    def engine_lost(self, request_id: str, tokens: int) -> None:
        """Record that the engine of a request has died, or has returned the request unfinished. `tokens` is
        how many tokens the client has.
        """
        if known := self._spans.get(request_id):
            known.is_lost = True
            known.span.event("crash", {"vestal.tokens": tokens})

    def ended(self, request_id: str, outcome: str, tokens: int, crashes: int) -> None:
        """End the span of a request. `outcome` is `done`, `cancelled`, or an error code. `tokens` is how many
        tokens of the answer the client has, and `crashes` how many engines died while they ran the request.
        """
        if known := self._spans.pop(request_id, None):
            known.span.set({"vestal.outcome": outcome, "vestal.tokens": tokens, "vestal.crashes": crashes})
            known.span.end("" if outcome in ("done", "cancelled") else outcome)
