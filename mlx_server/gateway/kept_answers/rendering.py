"""The response that a route makes, frame by frame: kept while it is made, for all who follow it.

A frame is one ASGI body message: a line of NDJSON, a server-sent event, or the body of an answer that is not
streamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Rendering:
    """One response. `error` is an exception that the route did not handle, for all who follow."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.is_complete = False
        self.error: Exception | None = None
        self._start: Message | None = None
        self._changed = asyncio.Event()

    @property
    def status(self) -> int | None:
        """Return the HTTP status, once it is known."""
        return self._start["status"] if self._start else None

    async def take(self, message: Message) -> None:
        """Take a message of the route: this is its ASGI `send`."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            if body := message.get("body", b""):
                self.frames.append(body)
            self.is_complete = not message.get("more_body", False)
        self.wake()

    def end(self, error: Exception | None = None) -> None:
        """Note that the route has returned, or failed with an exception."""
        self.is_complete, self.error = True, error
        self.wake()

    def wake(self) -> None:
        """Have all who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self) -> None:
        """Return when a message has come, at the end, and at `wake`."""
        await self._changed.wait()

    async def copy_to(
        self,
        send: Send,
        first_frame: int,
        is_gone: Callable[[], bool],
        wait_to_start: Callable[[], Awaitable[None]],
    ) -> bool:
        """Send the response from its frame number `first_frame` on, as it is made, after `wait_to_start`.

        Return False if the client has gone before the end. Raises `error` if nothing has been sent.
        """
        position, has_started = first_frame, False
        while True:
            if self._start is not None and not has_started:
                await wait_to_start()
                await send(_start_from(self._start, first_frame))
                has_started = True
            while has_started and position < len(self.frames) and not is_gone():
                await send({"type": "http.response.body", "body": self.frames[position], "more_body": True})
                position += 1
            if is_gone():
                return False
            if self.is_complete:
                break
            await self.wait_for_change()
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


def _start_from(start: Message, first_frame: int) -> Message:
    """Return a copy of the message, since middleware adds headers to it, for a body that begins so late."""
    headers = [
        (name, value) for name, value in start["headers"] if first_frame == 0 or name != b"content-length"
    ]
    return {**start, "headers": headers}
