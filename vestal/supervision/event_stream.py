"""Numbered events such as `child_exited` and `breaker_opened`, which feed logs, journal and status page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that happened to `component`.

    `ts` is in seconds since 1970. `seq` numbers the events of one stream without gaps. `cause` says why it
    happened, in words for people; `fields` hold the details for programs.
    """

    ts: float
    seq: int
    component: str
    event: str
    cause: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the event as one flat dictionary for JSON."""
        head = {"ts": self.ts, "seq": self.seq, "component": self.component, "event": self.event}
        return head | {"cause": self.cause} | dict(self.fields)


class EventStream:
    """Numbers events and passes them to one sink, in order. `wall` returns the seconds since 1970."""

    def __init__(self, wall: Callable[[], float], sink: Callable[[Event], None]) -> None:
        self._wall = wall
        self._sink = sink
        self._seq = 0

    def emit(self, component: str, event: str, cause: str = "", **fields: Any) -> Event:
        """Pass a new event to the sink, and return it. An exception of the sink is not caught.

        `component` is the name of what the event happened to, such as a child. `event` is the kind of event,
        such as `child_exited`. `cause` says in words why it happened, and `fields` are details for programs.
        """
        self._seq += 1
        emitted = Event(self._wall(), self._seq, component, event, cause, fields)
        self._sink(emitted)
        return emitted


def log_event(event: Event) -> None:
    """Write an event to the log as one line. A Supervisor without an `on_event` of its own uses this."""
    fields = "".join(f" {key}={value}" for key, value in event.fields.items())
    cause = f" ({event.cause})" if event.cause else ""
    _log.info("%s %s%s%s", event.component, event.event, fields, cause)
