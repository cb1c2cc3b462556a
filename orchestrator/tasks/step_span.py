"""Create the trace span of one step of a task, and set the header by which the model servers continue the
trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vestal.tracing import present_traceparent

if TYPE_CHECKING:
    from vestal.tracing.tracer import Tracer


@contextmanager
def step_span(tracer: Tracer | None, name: str, task_id: str, parent: str | None) -> Iterator[None]:
    """Create a trace span that covers the `with` block. Requests that are sent within the block belong to the
    span. `parent` is the traceparent of the span around it; None begins a new trace.

    Without a tracer, do nothing. An exception ends the span with the exception's name as the error.
    """
    if tracer is None:
        yield
        return
    about = {"vestal.task": task_id, "vestal.step": name}
    span = tracer.start(f"step {name.partition(':')[0]}", parent, attributes=about)
    token = present_traceparent.set(span.traceparent)
    error = ""
    try:
        yield
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        present_traceparent.reset(token)
        span.end(error)
