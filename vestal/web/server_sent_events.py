"""Server-sent events as bytes: the form in which every service streams to browsers and clients. Pure."""

from __future__ import annotations

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which readers skip. It shows that the connection is alive."""


def frame(data: bytes, event: str = "", event_id: int | None = None) -> bytes:
    """Return one event. `data` is one line, such as JSON; `event` is its type.

    A client that reconnects sends the `event_id` of the last event that it has received.
    """
    head = b"" if event_id is None else b"id: %d\n" % event_id
    if event:
        head += b"event: %b\n" % event.encode()
    return b"%bdata: %b\n\n" % (head, data)
