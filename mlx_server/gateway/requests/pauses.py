"""Measure how long requests wait when their engine dies, and report which of them continued."""

from __future__ import annotations

from mlx_server.gateway.telemetry import Telemetry

MAX_IDS = 64
"""How many ids one event lists at most. By its id, the host agent recognizes a request whose engine dies
repeatedly, and counts the request only once."""


class Pauses:
    """Measures the pauses of the requests that have lost their engine and have not continued since. Times are
    monotonic seconds.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._began_at: dict[str, float] = {}

    def begin(self, request_id: str, now: float) -> None:
        """Record that the request has lost its engine. This has no effect if the request has been waiting
        since an earlier loss.
        """
        self._began_at.setdefault(request_id, now)

    def report_parked(self) -> None:
        """Emit an event that says how many requests are waiting after the loss of their engine, if there are
        any.
        """
        if self._began_at:
            ids = list(self._began_at)[:MAX_IDS]
            self._telemetry.emit("requests_parked", count=len(self._began_at), ids=ids)

    def end(self, request_id: str, emitted: int, now: float) -> None:
        """Record that the request gets its next token, which ends its pause. `emitted` is how many tokens its
        client had before.
        """
        if (pause_s := self._take(request_id, emitted, now)) is not None:
            self._telemetry.stream_paused(pause_s)

    def complete(self, request_id: str, emitted: int, now: float) -> None:
        """Record that the request has ended at `now`, after `emitted` tokens in all. If its engine was lost
        and no token has come since, its pause ends now. An embedding, for example, has no tokens.

        Such a pause is reported in the event `request_resumed`, but it is not counted in the metric of the
        pauses of streams, because it includes the whole computation by the next engine.
        """
        self._take(request_id, emitted, now)

    def _take(self, request_id: str, emitted: int, now: float) -> float | None:
        """End the request's pause: emit the event `request_resumed`, and return the length of the pause in
        seconds. Without a pause, emit nothing and return None. `emitted` is how many tokens the client
        already has.
        """
        if (began_at := self._began_at.pop(request_id, None)) is None:
            return None
        paused_ms = round((now - began_at) * 1000, 1)
        self._telemetry.emit("request_resumed", id=request_id, emitted=emitted, paused_ms=paused_ms)
        return now - began_at

    def forget(self, request_id: str) -> None:
        """Remove a request that has ended."""
        self._began_at.pop(request_id, None)
