"""Measure how long a stream stands still when its engine dies, and report it."""

from __future__ import annotations

from mlx_server.gateway.telemetry import Telemetry

MAX_IDS = 64
"""The ids in one event. The host agent counts a request once, however often its engine dies."""


class Pauses:
    """The requests that have lost their engine and have had no token since. Times are monotonic seconds."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._began_at: dict[str, float] = {}

    def begin(self, request_id: str, now: float) -> None:
        """Record that the request has lost its engine, unless it had none before."""
        self._began_at.setdefault(request_id, now)

    def report_parked(self) -> None:
        """Emit how many requests have no engine, if there are any."""
        if self._began_at:
            ids = list(self._began_at)[:MAX_IDS]
            self._telemetry.emit("requests_parked", count=len(self._began_at), ids=ids)

    def end(self, request_id: str, emitted: int, now: float) -> None:
        """Record the request's next token; `emitted` is how many its client had before."""
        if (began_at := self._began_at.pop(request_id, None)) is None:
            return
        pause_s = now - began_at
        self._telemetry.stream_paused(pause_s)
        paused_ms = round(pause_s * 1000, 1)
        self._telemetry.emit("request_resumed", id=request_id, emitted=emitted, paused_ms=paused_ms)

    def forget(self, request_id: str) -> None:
        """Drop a request that has ended."""
        self._began_at.pop(request_id, None)
