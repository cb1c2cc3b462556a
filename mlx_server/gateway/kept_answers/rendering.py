"""The response that a route writes, frame by frame. It is stored while it is written, for all clients that
follow it.

A frame is one ASGI body message: a line of NDJSON, a server-sent event, or the body of an answer that is not
streamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from vestal.web.http_error import HttpError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BrokenOff(Exception):
    """The gateway that continues an answer did not deliver the rest of the answer."""


class CopyElsewhere(Protocol):
    """A function that reads an answer from another gateway and sends it to a client, from frame number
    `first_frame` to its end. With `has_started`, the client has received the HTTP status and the headers
    already, so that only frames are sent. The function raises BrokenOff if that gateway does not deliver the
    rest.
    """

    async def __call__(self, answer_id: str, first_frame: int, send: Send, *, has_started: bool) -> None: ...


@dataclass(frozen=True)
class Copied:
    """How much of a response was sent: all frames before `next_frame` and, if `has_started`, the status."""

    next_frame: int
    has_started: bool


class Rendering:
    """Stores one response, and sends it to any number of clients with `copy_to`.

    `error` is the exception that the route did not handle, or the one that `cut_off` was given; otherwise
    None. `is_cut_off` is True if the route was cancelled before the response was complete. `copy_to` raises
    `error` for every client, but after a cut-off only for a client that has received nothing; the others get
    an incomplete response.

    `is_frozen` is True if another gateway continues the response. No frames are added here then, and
    `copy_to` sends only the frames that are stored here.
    """

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.is_complete = False
        self.error: Exception | None = None
        self.is_cut_off = False
        self.is_frozen = False
        self._start: Message | None = None
        self._held: list[Callable[[], None]] | None = None
        self._changed = asyncio.Event()

    @property
    def status(self) -> int | None:
        """Return the HTTP status of the response; None until the route has sent it."""
        return self._start["status"] if self._start else None

    async def take(self, message: Message) -> None:
        """Add an ASGI message to this response. The route that writes the response gets this method as its
        ASGI `send` function.
        """
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
        """Record that the route has returned, or failed with `error`."""
        if self.is_frozen:
            return
        if self._held is not None:
            self._held.append(partial(self.end, error))
            return
        self.is_complete, self.error = True, error
        self.wake()

    def cut_off(self, error: HttpError) -> None:
        """Record that the route was cancelled. Unless the response was complete by then, clients that have
        received nothing get `error`, and the others an incomplete response.
        """
        if self._held is not None:
            self._held.append(partial(self.cut_off, error))
        elif not self.is_complete:
            self.is_cut_off = True
            self.end(error)

    def hold(self) -> None:
        """Hold back the further ASGI messages of the route, so that no client receives them, until `release`
        adds them to the response or `freeze` drops them.
        """
        if self._held is None and not self.is_complete:
            self._held = []

    def release(self) -> None:
        """Add to this response, in order, the ASGI messages of the route that were held back since `hold` was
        called. If the route has ended meanwhile, record its end, too. Later messages are added at once.
        """
        held, self._held = self._held or [], None
        for step in held:
            step()

    def freeze(self) -> None:
        """Drop the ASGI messages of the route that are held back, and ignore all later ones, because another
        gateway continues the response. `copy_to` then sends clients the frames that are stored here, and no
        more. A response that is complete already is not changed.
        """
        self.is_frozen, self._held = not self.is_complete, None
        self.wake()

    def wake(self) -> None:
        """Wake all callers of `wait_for_change`."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self) -> None:
        """Wait until the route sends another ASGI message, the response ends, or `wake` is called."""
        await self._changed.wait()

    async def copy_to(
        self,
        send: Send,
        first_frame: int,
        is_gone: Callable[[], bool],
        wait_until_written: Callable[[], Awaitable[None]],
    ) -> Copied | None:
        """Send the response to a client: the status with the headers, and the frames from number
        `first_frame` on, each as soon as the route has written it.

        `is_gone` says whether the client has disconnected. `wait_until_written` is called before the status
        is sent, and again each time that new frames are about to be sent; it waits until the answer log holds
        the tokens and the keep-alives that these frames are made from.

        Return None after the whole response was sent, or if the client has disconnected. If `freeze` was
        called because another gateway continues the response, return how far the response was sent here.

        If the route failed, raise its exception. If `cut_off` was called because the route was cancelled, and
        the client has received nothing, raise the error that `cut_off` was given. If the client has received
        the status, return None without sending the response's end, so that the server closes the connection.
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
        if self.is_cut_off and has_started:
            return None
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None


def _start_from(start: Message, first_frame: int) -> Message:
    """Return a copy of the start message for a body that begins at `first_frame`. Beyond frame 0,
    Content-Length is left out, because the length is unknown. The copy is needed because middleware adds
    headers to the message.
    """
    headers = [
        (name, value) for name, value in start["headers"] if first_frame == 0 or name != b"content-length"
    ]
    return {**start, "headers": headers}
