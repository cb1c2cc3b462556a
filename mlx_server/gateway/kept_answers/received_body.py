"""The body of a request that is kept, as it arrives."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any


class ReceivedBody:
    """The body of a request as it arrives, until it is written to the log. `is_whole` is set when the body is
    complete.
    """

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self.is_whole = asyncio.Event()
        self._parts = list(parts)
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of what has arrived, as hexadecimal digits."""
        return self._hash.hexdigest()

    def add(self, message: Mapping[str, Any]) -> None:
        """Add an ASGI message, which may also be the client's disconnection."""
        if part := message.get("body", b""):
            self._hash.update(part)
            self._parts.append(part)
        if not message.get("more_body", False):
            self.is_whole.set()

    def peek(self) -> bytes:
        """Return what has arrived of the body."""
        return b"".join(self._parts)

    def replace(self, body: bytes) -> None:
        """Have `body` written to the log in place of what has arrived. The digest does not change."""
        self._parts = [body]

    def take_parts(self) -> list[bytes]:
        """Return the parts of the body, and forget them."""
        parts, self._parts = self._parts, []
        return parts
