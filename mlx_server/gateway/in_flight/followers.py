"""Stream the requests in flight as server-sent events: the body of GET /requests whenever it changes.

All followers share the same frames, which are built at most twice a second. A slow follower gets the newest
frame when it has read the one before; the frames in between are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.json_text import json_bytes
from vestal.supervision import Clock
from vestal.web import server_sent_events

MAX_FOLLOWERS = 32
"""How many clients may follow at once. The limit is needed because their connections cannot be closed to make
room for others."""
LOOK_S = 1.0
REPEAT_S = 10.0
FRESH_S = 0.5
FULL = f"{MAX_FOLLOWERS} others follow the requests; try again later, or ask GET /requests."
CLOSED = "The server is stopping or was replaced; connect again."
HEADERS = {"Cache-Control": "no-cache", "Connection": "close"}
"""The connection is closed after a stream, because the client's next stream may have to come from another
gateway."""


class Followers:
    """Serves the clients of GET /requests/events. `report` returns the body of GET /requests."""

    def __init__(self, report: Callable[[], dict[str, Any]], clock: Clock) -> None:
        self._report = report
        self._clock = clock
        self._closing = asyncio.Event()
        self._count = 0
        self._frame = b""
        self._made_at = -math.inf

    def close(self) -> None:
        """End all streams, and refuse new ones."""
        self._closing.set()

    def response(self) -> StreamingResponse:
        """Return a response that streams the list of the requests in flight to a new client, as the
        server-sent events that the method `frames` yields, until the client leaves or `close` is called.
        Raises Unavailable if MAX_FOLLOWERS clients receive such a stream already, or after `close`.
        """
        if self._closing.is_set():
            raise Unavailable("draining", CLOSED, retry_after_s=1)
        if self._count >= MAX_FOLLOWERS:
            raise Unavailable("overloaded", FULL)
        self._count += 1
        return _Events(self.frames(), self._left)

    def _left(self) -> None:
        self._count -= 1

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the body of GET /requests as a server-sent event: at once, and again whenever the body has
        changed, which is checked every LOOK_S seconds. An unchanged body is repeated after REPEAT_S seconds.
        The iterator ends once `close` is called.
        """
        sent, sent_at = b"", -math.inf
        while not self._closing.is_set():
            now = self._clock.now()
            if (frame := self._newest(now)) != sent or now - sent_at >= REPEAT_S:
                sent, sent_at = frame, now
                yield frame
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._closing.wait()

    def _newest(self, now: float) -> bytes:
        if now - self._made_at >= FRESH_S:
            self._frame = server_sent_events.frame(json_bytes(self._report()), "requests")
            self._made_at = now
        return self._frame


class _Events(StreamingResponse):
    """A response that streams events. `on_end` is called once when the client or the server ends the
    stream.
    """

    def __init__(self, frames: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(frames, media_type=server_sent_events.MEDIA_TYPE, headers=HEADERS)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()
