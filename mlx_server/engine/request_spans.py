"""The trace spans of the engine's work on requests: queue wait, prefill, decode. They are recorded when an
answer ends.

If the engine is killed, the spans of unfinished work are lost, but the gateway's span of the request shows
when that happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlx_server.protocol import Done, Embed, Embedding, Event, Failed, Generate, Op, Rerank, Reranked

if TYPE_CHECKING:
    from vestal.tracing.tracer import Tracer


class EngineSpans:
    """Records spans from the operations that the engine receives and the events that it sends. Only the main
    thread may use it.
    """

    def __init__(self, tracer: Tracer, wall: Callable[[], float] = time.time) -> None:
        self._tracer, self._wall = tracer, wall
        self._received: dict[str, tuple[str, float, str]] = {}  # request id -> (traceparent, arrival, model)

    def received(self, op: Op) -> None:
        """Store the arrival time of `op` if it is a request that belongs to a trace."""
        if isinstance(op, Generate | Embed | Rerank) and op.traceparent:
            self._received[op.id] = (op.traceparent, self._wall(), op.model)

    def sent(self, event: Event) -> None:
        """If `event` ends a traced request, record the request's spans."""
        if not isinstance(event, Done | Failed | Embedding | Reranked):
            return
        known = self._received.pop(event.id, None)
        if known is None:
            return
        parent, received_at, model = known
        now = self._wall()

        def record(name: str, began_at: float, ended_at: float, **figures: str | int) -> None:
            attributes: dict[str, str | int] = {"gen_ai.request.model": model}
            attributes |= {f"vestal.{figure}": value for figure, value in figures.items()}
            error = event.code if isinstance(event, Failed) else ""
            self._tracer.record(name, parent, began_at, ended_at, error=error, attributes=attributes)

        match event:
            case Done(usage=usage):
                decode_at = max(received_at, now - usage.decode_s)
                prefill_at = max(received_at, decode_at - usage.prefill_s)
                record("queue wait in the engine", received_at, prefill_at)
                tokens, cached = usage.prompt_tokens, usage.cached_tokens
                record("prefill", prefill_at, decode_at, prompt_tokens=tokens, cached_tokens=cached)
                record("decode", decode_at, now, tokens=usage.completion_tokens, reason=event.reason)
            case Embedding():
                embed_at = max(received_at, now - event.embed_s)
                record("queue wait in the engine", received_at, embed_at)
                record("embed", embed_at, now, prompt_tokens=event.prompt_tokens)
            case Reranked():
                rank_at = max(received_at, now - event.rank_s)
                record("queue wait in the engine", received_at, rank_at)
                record("rank", rank_at, now, prompt_tokens=event.prompt_tokens)
            case Failed():
                record("failed", received_at, now)
