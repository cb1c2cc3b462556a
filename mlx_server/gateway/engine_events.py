"""The newest events of the engine and its requests, for the host agent's journal (GET /events, a long poll).

The agent is not the engine's parent process. Without these events it would only see that the number of
restarts went up; with them, its status page shows what died, why, and what was done about it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque

from mlx_server.gateway import errors
from vestal.supervision.event_stream import Event

MAX_EVENTS = 200
MAX_WAITING = 64
"""How many requests may wait for events at once. The limit is needed because their connections cannot be
closed to make room for others."""
COMPONENT = "mlx_engine"
FIRST_DELIVERY = "gateway_first_delivery"
"""The event which says that a client got the first token or answer from this gateway. The field `pid` holds
the gateway's PID."""

PROGRAM_CHANGED = "program_changed"
"""The event which says that engines started from now on do not fit this gateway, because the installed
program has changed. The host agent then replaces the gateway."""

ABOUT_REQUESTS = frozenset(
    {
        "answers_taken_up",
        "connections_not_accepted",
        "engine_killed_for_memory",
        "request_passed_on",
        "request_resumed",
        "requests_lost",
        "requests_parked",
        "weights_damaged",
        FIRST_DELIVERY,
        PROGRAM_CHANGED,
    }
)


class EngineEventBuffer:
    """Stores the newest events of the engine, and lets requests wait for the next one."""

    def __init__(self) -> None:
        self.instance = f"{os.getpid()}-{time.time_ns()}"  # the numbers start again with each gateway
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._changed = asyncio.Event()
        self._closing = False
        self._waiting = 0

    def add(self, event: Event) -> None:
        """Store the event if it is about the engine or its requests, and wake the callers that wait in
        `after`. The event `server_stopping` is not stored, but wakes them too, and `after` no longer waits
        from then on.
        """
        if event.component == COMPONENT or event.event in ABOUT_REQUESTS:
            self._events.append(event)
            self._wake()
        elif event.event == "server_stopping":  # uvicorn would wait for the open responses
            self._closing = True
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, seq: int, wait_s: float) -> list[Event]:
        """Return the events with a number above `seq`. If there is none, wait for one up to `wait_s` seconds;
        return an empty list if none came. Raises Unavailable if MAX_WAITING other requests wait already.
        """
        if (found := self._newer(seq)) or wait_s <= 0 or self._closing:
            return found
        if self._waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} other requests wait for events; try again later, or without wait_s."
            raise errors.Unavailable("overloaded", message)
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return []
        finally:
            self._waiting -= 1
        return self._newer(seq)

    def _newer(self, seq: int) -> list[Event]:
        return [event for event in self._events if event.seq > seq]
