"""What happened, in the past tense: the one stream that logs, journal and page read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """One thing that happened. `ts` is wall time in seconds; `seq` counts up without gaps in one stream."""

    ts: float
    seq: int
    component: str
    event: str
    cause: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        head = {"ts": self.ts, "seq": self.seq, "component": self.component, "event": self.event}
        return head | {"cause": self.cause} | dict(self.fields)


class EventStream:
    """Numbers events and hands each to one sink, in order."""

    def __init__(self, wall: Callable[[], float], sink: Callable[[Event], None]) -> None:
        self._wall = wall
        self._sink = sink
        self._seq = 0

    def emit(self, component: str, event: str, cause: str = "", **fields: Any) -> Event:
        self._seq += 1
        happened = Event(self._wall(), self._seq, component, event, cause, fields)
        self._sink(happened)
        return happened
