"""Read a stream of server-sent events on a thread, and reconnect after the connection is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from host_agent.blocking_http import open_response
from vestal.config import ConfigError

READ_TIMEOUT_S = 40.0
"""Longer than the 15 s in which every stream sends at least one event or comment."""
RECONNECT_DELAY_S = 0.5
REFUSED_DELAY_S = 5.0


@dataclass(frozen=True)
class FeedEvent:
    """An event of a stream. When the connection fails or ends, an event named `lost` follows, with the reason
    in `data`.
    """

    name: str
    data: Any


LOST = "lost"


def parse(lines: Iterable[bytes]) -> Iterator[FeedEvent]:
    """Yield each server-sent event in `lines`. Comments, and events whose data is not JSON, are skipped. The
    function has no side effects.
    """
    name = "message"
    data: list[bytes] = []
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                with contextlib.suppress(ValueError):
                    yield FeedEvent(name, json.loads(b"\n".join(data)))
            name, data = "message", []
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field == b"data":
            data.append(value)


class EventFeed:
    """Reads the event stream at one URL again and again, and puts its events into the queue `events`.

    `token` is called before each connection, because the service may create its token only when it starts.
    When a connection fails or ends, an event named `lost` is put into the queue, with the reason as its data:
    a NotAStream if the server answered with an error status, another exception if the connection failed, or
    a text if the stream ended.
    """

    def __init__(self, url: str, token: Callable[[], str], events: SimpleQueue[FeedEvent]) -> None:
        self._url, self._token, self._events = url, token, events

    def start(self) -> None:
        """Read the stream on a daemon thread, which does not keep the process alive."""
        threading.Thread(target=self._run, name=f"feed of {self._url}", daemon=True).start()

    def _run(self) -> None:
        while True:
            reason: object = "the stream has ended"
            try:
                self._follow()
            except (OSError, http.client.HTTPException, ValueError, ConfigError) as error:
                reason = error
            self._events.put(FeedEvent(LOST, reason))
            is_refused = isinstance(reason, NotAStream) and reason.status != http.client.SERVICE_UNAVAILABLE
            time.sleep(REFUSED_DELAY_S if is_refused else RECONNECT_DELAY_S)

    def _follow(self) -> None:
        with open_response("GET", self._url, token=self._token(), timeout_s=READ_TIMEOUT_S) as response:
            if response.status != http.client.OK:
                raise NotAStream(response.status)
            for event in parse(response):
                self._events.put(event)


class NotAStream(OSError):
    """The server answered with an error instead of a stream. `status` is the HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answers {status}")
        self.status = status

    @property
    def is_unknown(self) -> bool:
        """Return whether the server has no such stream, because its version is older."""
        return self.status == http.client.NOT_FOUND
