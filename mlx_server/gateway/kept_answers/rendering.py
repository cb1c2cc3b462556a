"""The response that a route makes, frame by frame: kept while it is made, for all who follow it.

A frame is one ASGI body message: a line of NDJSON, a server-sent event, or the body of an answer that is not
streamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BrokenOff(Exception):
    """The gateway that continues an answer did not deliver the rest of it."""


class CopyElsewhere(Protocol):
    """Sends an answer that another gateway makes, from a frame on, until its end."""

    async def __call__(self, answer_id: str, first_frame: int, send: Send, *, has_started: bool) -> None: ...


@dataclass(frozen=True)
class Copied:
    """How far a response has been sent: up to this frame, and whether its status and headers were."""

    next_frame: int
    has_started: bool


class Rendering:
    """One response. `error` is an exception that the route did not handle, for all who follow."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.is_complete = False
        self.error: Exception | None = None
        self.is_frozen = False
        self._start: Message | None = None
        self._held: list[Callable[[], None]] | None = None
        self._changed = asyncio.Event()

    @property
    def status(self) -> int | None:
        """Return the HTTP status, once it is known."""
        return self._start["status"] if self._start else None

    async def take(self, message: Message) -> None:
        """Take a message of the route: this is its ASGI `send`."""
        self._take(message)

    def _take(self, message: Message) -> None:
        if self.is_frozen:
            return
        if self._held is not None:
            self._held.append(partial(self._take, message))
            return
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            if body := message.get("body", b""):
                self.frames.append(body)
            self.is_complete = not message.get("more_body", False)
        self.wake()

    def end(self, error: Exception | None = None) -> None:
        """Record that the route has returned, or failed with an exception."""
        if self.is_frozen:
            return
        if self._held is not None:
            self._held.append(partial(self.end, error))
            return
        self.is_complete, self.error = True, error
        self.wake()

    def hold(self) -> None:
        """Show nothing that comes from now on, until `release` shows it, or `freeze` drops it."""
        if self._held is None and not self.is_complete:
            self._held = []

    def release(self) -> None:
        """Show what was held."""
        held, self._held = self._held or [], None
        for step in held:
            step()

    def freeze(self) -> None:
        """Accept no further message, because another gateway continues the response. Followers stay at their
        last frame.
        """
        self.is_frozen, self._held = not self.is_complete, None
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
        wait_until_written: Callable[[], Awaitable[None]],
    ) -> Copied | None:
        """Send the response from its frame number `first_frame` on, as it is made.

        `wait_until_written` is awaited before anything is sent. Return how far it has come if it is frozen
        before its end, and None at the end, or if the client has gone. Raises `error`.
        """
        position, has_started = first_frame, False
        while True:
            if self._start is not None and not has_started:
                await wait_until_written()
                await send(_start_from(self._start, first_frame))
                has_started = True
            if has_started and position < (made := len(self.frames)):
                await wait_until_written()
                while position < made and not is_gone():
                    body = self.frames[position]
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    position += 1
                if position < len(self.frames) and not is_gone():
                    continue
            if is_gone():
                return None
            if self.is_frozen:
                return Copied(position, has_started)
            if self.is_complete:
                break
            await self.wait_for_change()
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None


def _start_from(start: Message, first_frame: int) -> Message:
    """Return a copy of the message, since middleware adds headers to it, for a body that begins so late."""
    headers = [
        (name, value) for name, value in start["headers"] if first_frame == 0 or name != b"content-length"
    ]
    return {**start, "headers": headers}
