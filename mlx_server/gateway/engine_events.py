"""GET /events: what became of the engine and its requests, for the agent's journal. A long poll.

The agent is not the engine's parent and would otherwise only see that a number of restarts went up; the page
has to say what died, why, and what was done about it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from mlx_server.gateway import errors
from vestal.supervision.event_stream import Event

KEPT = 200
LONGEST_WAIT_S = 30.0
COMPONENT = "mlx_engine"
ABOUT_REQUESTS = frozenset({"requests_parked", "request_resumed"})


class EngineEvents:
    """The newest of the engine's events, and a bell for who waits for the next. One event loop owns it."""

    def __init__(self) -> None:
        self.instance = f"{os.getpid()}-{time.time_ns()}"  # numbers begin anew with each gateway
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._bell = asyncio.Event()
        self._closing = False

    def take(self, event: Event) -> None:
        if event.component == COMPONENT or event.event in ABOUT_REQUESTS:
            self._kept.append(event)
            self._ring()
        elif event.event == "server_stopping":  # nobody may be kept waiting: uvicorn would wait for them
            self._closing = True
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    async def after(self, seq: int, wait_s: float) -> list[Event]:
        """Those with a higher number, waited for up to `wait_s` where there is none yet."""
        bell = self._bell
        if not (found := self._newer(seq)) and wait_s > 0 and not self._closing:
            try:
                async with asyncio.timeout(wait_s):
                    await bell.wait()
            except TimeoutError:
                return []
            found = self._newer(seq)
        return found

    def _newer(self, seq: int) -> list[Event]:
        return [event for event in self._kept if event.seq > seq]


def router(events: EngineEvents) -> APIRouter:
    routes = APIRouter()

    @routes.get("/events", responses={400: {}})
    async def follow(since: str = "0", instance: str = "", wait_s: str = "0") -> Response:
        """`since` counts only with the `instance` it came from: another gateway's numbers begin anew."""
        seq, wait = int(_number(since, "since")), min(_number(wait_s, "wait_s"), LONGEST_WAIT_S)
        found = await events.after(seq if instance in ("", events.instance) else 0, wait)
        told = [
            {"ts": e.ts, "seq": e.seq, "component": e.component, "event": e.event, "cause": e.cause}
            | {"fields": dict(e.fields)}
            for e in found
        ]
        return JSONResponse({"instance": events.instance, "events": told})

    return routes


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53:
        raise errors.BadRequest("invalid_request", f"`{name}` must be a number from 0 on, not {text[:40]!r}")
    return number
