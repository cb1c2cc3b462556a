"""The tracer: a thin adapter of the OpenTelemetry SDK. Importing this module imports the SDK."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from vestal.tracing import HEADER

EXPORT_TIMEOUT_S = 5
SCHEDULE_MS = 1000
MAX_QUEUE = 2048  # spans that may wait for the collector; further ones are dropped
MAX_BATCH = 512
CLOSE_TIMEOUT_S = 2.0
REPORT_EACH_S = 600.0
NANOSECONDS = 1_000_000_000
Attributes = Mapping[str, str | int | float | bool]


class Span:
    """A span that has begun. It wraps `span`, a span of the OpenTelemetry SDK.

    Callers give it only numbers, short names and booleans as attributes, never the text of a request.
    """

    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """Return the W3C header that makes other spans children of this one."""
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._span))
        return carrier.get(HEADER, "")

    def set(self, attributes: Attributes) -> None:
        """Add attributes to the span."""
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes) -> None:
        """Add an event to the span, with the present time."""
        self._span.add_event(name, attributes)

    def end(self, error: str = "") -> None:
        """End the span now; `error` says in a few words what failed, if anything did."""
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class Tracer:
    """Creates spans of the process called `service`, which a thread of the SDK sends in batches.

    `report` is called with a sentence if spans cannot be sent, at most once each REPORT_EACH_S. Times are in
    seconds since 1970.
    """

    def __init__(self, service: str, report: Callable[[str], object]) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # the SDK logs each failed attempt
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False
        )
        exporter = _ReportingExporter(OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S), report)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=MAX_QUEUE,
                schedule_delay_millis=SCHEDULE_MS,
                max_export_batch_size=MAX_BATCH,
                export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("vestal")

    def start(
        self,
        name: str,
        parent: str | None = None,
        *,
        serves: bool = False,
        attributes: Attributes | None = None,
    ) -> Span:
        """Begin a span now. `parent` is a traceparent; without a valid one, a new trace begins.

        `serves` is True if the span covers the handling of a request from another process.
        """
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        return Span(self._tracer.start_span(name, _context(parent), kind=kind, attributes=attributes))

    def record(
        self,
        name: str,
        parent: str | None,
        began_at: float,
        ended_at: float,
        *,
        error: str = "",
        attributes: Attributes | None = None,
    ) -> None:
        """Create a span for work that began at `began_at` and ended at `ended_at`, both in seconds since
        1970.

        `parent` is a traceparent; without a valid one, a new trace begins. `error` says what failed, if
        anything did.
        """
        began_ns, ended_ns = (int(at * NANOSECONDS) for at in (began_at, max(began_at, ended_at)))
        span: Any = self._tracer.start_span(
            name, _context(parent), start_time=began_ns, attributes=attributes
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended_ns)

    def close(self) -> None:
        """Send the waiting spans, for at most CLOSE_TIMEOUT_S seconds."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)


class _ReportingExporter(SpanExporter):
    """Passes spans to the wrapped exporter. If that fails, reports the failure at most once each
    REPORT_EACH_S.
    """

    def __init__(self, exporter: SpanExporter, report: Callable[[str], object]) -> None:
        self._exporter, self._report = exporter, report
        self._reported_at = float("-inf")
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; return the result of the wrapped exporter. The SDK calls this on its own thread."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            now = time.monotonic()
            if now - self._reported_at > REPORT_EACH_S:
                self._reported_at = now
                self._report(
                    f"{self._lost} spans could not be sent: the collector at OTEL_EXPORTER_OTLP_ENDPOINT"
                    " does not take them. Requests are served all the same."
                )
        return result

    def shutdown(self) -> None:
        """Shut down the wrapped exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the wrapped exporter. Return True if it has finished within `timeout_millis` milliseconds."""
        return self._exporter.force_flush(timeout_millis)


def _context(traceparent: str | None) -> Any:
    if not traceparent:
        return set_span_in_context(INVALID_SPAN)
    return TraceContextTextMapPropagator().extract({HEADER: traceparent}, set_span_in_context(INVALID_SPAN))
