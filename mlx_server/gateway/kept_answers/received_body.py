"""Collect the body of a request while it arrives, if the gateway stores the request's answer: the body is
written to the answer log, so that the request can be run again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any


class ReceivedBody:
    """Collects the parts of a request's body until they are written to the answer log. The event `is_whole`
    is set when no further part will come: the body is complete, the client has disconnected, or the request
    has ended.
    """

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self.is_whole = asyncio.Event()
        self._parts = list(parts)
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the bytes that have arrived, as hexadecimal digits."""
        return self._hash.hexdigest()

    def add(self, message: Mapping[str, Any]) -> None:
        """Add the next ASGI message of the request. The client's disconnection also completes the body."""
        if part := message.get("body", b""):
            self._hash.update(part)
            self._parts.append(part)
        if not message.get("more_body", False):
            self.is_whole.set()

    def peek(self) -> bytes:
        """Return the part of the body that has arrived."""
        return b"".join(self._parts)

    def replace(self, body: bytes) -> None:
        """Replace the collected parts by `body`, which is then written to the answer log instead of the
        received body. The digest stays that of the received body.
        """
        self._parts = [body]

    def take_parts(self) -> list[bytes]:
        """Return the parts of the body that have arrived, and remove them from this object to free the
        memory.
        """
        parts, self._parts = self._parts, []
        return parts
