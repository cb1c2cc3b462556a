"""Traces of requests by OpenTelemetry: off, and not imported, unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

A trace crosses processes as a W3C `traceparent`. Spans have names, identifiers, models and numbers, and never
a prompt or an answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vestal.tracing.tracer import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
HEADER = "traceparent"
MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: no traces are sent. "
    "Install `vestal[tracing]`, or unset the variable; in a container, `vestal up` adds it to the image."
)

NOT_POSSIBLE = (
    "Tracing cannot begin, so no traces are sent: {}. Correct the environment variables OTEL_…, or unset "
    "OTEL_EXPORTER_OTLP_ENDPOINT."
)

present_traceparent: ContextVar[str | None] = ContextVar("present_traceparent", default=None)
"""The traceparent of the span in which the present asyncio task works, for requests that the task sends; None
if there is no span.
"""


def is_on(environment: Mapping[str, str]) -> bool:
    """Return whether these environment variables switch tracing on."""
    return any(environment.get(name) for name in ENDPOINTS) and environment.get("OTEL_SDK_DISABLED") != "true"


def open_tracer(service: str, report: Callable[[str], object]) -> Tracer | None:
    """Return the tracer of this process, under the name `service`; None if tracing is off.

    `report` is called with a sentence if tracing is on but cannot work. A slow or absent collector never
    delays the caller: spans wait in a bounded queue, and further spans are dropped.
    """
    if not is_on(os.environ):
        return None
    try:
        from vestal.tracing.tracer import Tracer

        return Tracer(service, report)
    except ImportError:
        report(MISSING)
    except Exception as error:  # the SDK reads its variables, also during the import
        report(NOT_POSSIBLE.format(f"{error or type(error).__name__}".rstrip(".")))
    return None
