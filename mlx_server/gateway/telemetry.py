"""The gateway's events, one JSON object a line on stderr, and the sums that GET /metrics shows."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from msgspec.structs import asdict

from mlx_server.gateway.engine_events import FIRST_DELIVERY, EngineEventBuffer
from mlx_server.protocol import Alive
from vestal.best_effort.output import write_line
from vestal.supervision.event_stream import Event, EventStream
from vestal.web.events import line_of
from vestal.web.histogram import Histogram

COMPONENT = "mlx_server"
GATEWAY_ITSELF = "gateway"
"""The name that stands for the client and the dialect of requests that the gateway itself makes, to have
models loaded again after a crash."""

NOT_FAILED = frozenset({"done", "cancelled"})
"""The outcomes of a request that do not count as failures."""

FIRST_TOKEN_BOUNDS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
PAUSE_BOUNDS_S = (0.1, 0.25, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 120)


@dataclass(frozen=True)
class EndedRequest:
    """The facts about a request that has ended. Times are seconds from the request's arrival; `first_token_s`
    is None if the request ended before its first token.
    """

    id: str
    dialect: str
    model: str
    outcome: str
    tokens: int
    crashes: int
    total_s: float
    first_token_s: float | None


class EngineCounts:
    """Sums the counts of all engines of this gateway. Each engine counts from 0 at its start, and reports its
    counts each second. A sum is read by the name of the count, such as `counts["cache_hits"]`.
    """

    def __init__(self) -> None:
        self._earlier: Counter[str] = Counter()
        self._present: Counter[str] = Counter()

    def __getitem__(self, name: str) -> int:
        return self._earlier[name] + self._present[name]

    def report(self, alive: Alive) -> None:
        """Record the counts that the running engine reports."""
        cache, drafts = alive.prompt_cache, alive.drafts
        self._present = Counter(
            cache_hits=cache.hits_ram + cache.hits_disk, cache_misses=cache.misses, **asdict(drafts)
        )

    def engine_lost(self) -> None:
        """Add the counts of an engine that has ended to the sums of the earlier engines."""
        self._earlier.update(self._present)
        self._present = Counter()


class Telemetry:
    """Writes the events of this process to `stream` (None: stderr), and keeps the sums and histograms that
    GET /metrics shows.

    `prompt_tokens` counts the tokens of the prompts whose answers have begun. `deliveries` counts the tokens
    and the complete answers that clients got. A token that an engine computes again after a crash is counted
    only once.
    """

    def __init__(self, wall: Callable[[], float], stream: TextIO | None = None) -> None:
        self.engine_events = EngineEventBuffer()
        self.requests: Counter[tuple[str, str]] = Counter()  # (dialect, outcome)
        self.prompt_tokens = 0
        self.tokens = 0
        self.deliveries = 0
        self.request_s = 0.0
        self.first_token_s = Histogram(FIRST_TOKEN_BOUNDS_S)
        self.of_engines = EngineCounts()
        self.engine_crashes = 0
        self.survived_crashes = 0
        self.pause_s = Histogram(PAUSE_BOUNDS_S)
        self._stream = stream or sys.stderr
        self._events = EventStream(wall, self._write)

    def emit(self, event: str, cause: str = "", **fields: Any) -> None:
        """Write an event of the gateway. `event` is the event's name in the past tense, and `cause` a
        sentence that explains it.
        """
        self._events.emit(COMPONENT, event, cause, **fields)

    def relay(self, event: Event) -> None:
        """Write an event of the engine's supervisor to the stream that the gateway's own events are written
        to. In place of its own number and time, the event gets that stream's next number and the current
        time.
        """
        self._events.emit(event.component, event.event, event.cause, **event.fields)

    def _write(self, event: Event) -> None:
        write_line(self._stream, line_of(event.as_json()))
        self.engine_events.add(event)

    def delivered(self) -> None:
        """Count a token or a whole answer that a client gets. For the first one, write an event that tells
        the host agent that this gateway has served a client.
        """
        if not self.deliveries:
            self.emit(FIRST_DELIVERY, pid=os.getpid())
        self.deliveries += 1

    def request_ended(self, request: EndedRequest) -> None:
        """Count a request that has ended, and write one event about it."""
        self.requests[request.dialect, request.outcome] += 1
        self.request_s += request.total_s
        fields: dict[str, Any] = {"id": request.id, "dialect": request.dialect, "model": request.model}
        fields |= {"outcome": request.outcome, "tokens": request.tokens}
        fields["ms"] = round(request.total_s * 1000, 1)
        if request.first_token_s is not None:
            fields["first_token_ms"] = round(request.first_token_s * 1000, 1)
        if request.crashes:
            fields["crashes"] = request.crashes
            of_a_client = request.dialect != GATEWAY_ITSELF
            self.survived_crashes += of_a_client and request.outcome == "done"
        self.emit("request_finished", **fields)

    def first_token(self, seconds: float) -> None:
        """Record that the first token of an answer came `seconds` after its request was accepted."""
        self.first_token_s.observe(seconds)

    def totals(self) -> dict[str, int | float]:
        """Return the totals since the start of this gateway that GET /health and GET /requests show: tokens,
        requests, failed requests, hits and misses of the prompt cache, and draft tokens. `first_token_s` is
        the sum of the seconds that `first_tokens` answers took until their first token. `requests` and
        `failed` do not include the requests that the gateway itself makes to have models loaded again after a
        crash.
        """
        of_clients = {key: count for key, count in self.requests.items() if key[0] != GATEWAY_ITSELF}
        return {
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "first_token_s": round(self.first_token_s.total, 6),
            "first_tokens": self.first_token_s.count,
            "requests": sum(of_clients.values()),
            "failed": sum(count for (_, outcome), count in of_clients.items() if outcome not in NOT_FAILED),
            "cache_hits": self.of_engines["cache_hits"],
            "cache_misses": self.of_engines["cache_misses"],
            "draft_tokens_guessed": self.of_engines["lookup_guessed"] + self.of_engines["model_guessed"],
            "draft_tokens_accepted": self.of_engines["lookup_accepted"] + self.of_engines["model_accepted"],
        }

    def stream_paused(self, seconds: float) -> None:
        """Record that one stream paused for `seconds`, from the loss of its engine to its next token."""
        self.pause_s.observe(seconds)
