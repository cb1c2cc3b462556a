"""The frames that one follower of GET /live has not received yet."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from vestal.web import server_sent_events

MAX_KEYS = 256


class Mailbox:
    """Keeps the frames (server-sent events) that one follower of GET /live has not received yet.

    Each frame is put under a key, which names its subject, such as the status or one incident. A newer frame
    replaces an older one of the same key, so that a slow follower skips outdated ones.
    """

    def __init__(self) -> None:
        self._frames: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, key: str, frame: bytes) -> None:
        """Add a frame, which replaces an earlier frame of the same key. Beyond MAX_KEYS keys, drop the oldest
        frame.
        """
        self._frames.pop(key, None)
        self._frames[key] = frame
        if len(self._frames) > MAX_KEYS:
            del self._frames[next(iter(self._frames))]
        self._changed.set()

    def close(self) -> None:
        """End the follower's stream, and drop the frames that it has not received."""
        self._closed = True
        self._changed.set()

    async def take(self) -> bytes:
        """Wait for frames, and return all of them joined, oldest first; b"" once the mailbox is closed."""
        await self._changed.wait()
        if self._closed:
            return b""
        self._changed.clear()
        taken = b"".join(self._frames.values())
        self._frames.clear()
        return taken


def frame(event: str, data: Any, event_id: int | None = None) -> bytes:
    """Return `data`, encoded as JSON, as the bytes of one server-sent event."""
    return server_sent_events.frame(json.dumps(data, default=str).encode(), event, event_id)
