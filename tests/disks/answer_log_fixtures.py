"""Accepted requests, events and a folder whose disk can fail, for tests of the answer log."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from mlx_server.gateway.answer_log import FORMAT, Accepted, AnswerLog, Event, LockOnlyLog
from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.folder import AnswerFolder
from mlx_server.protocol import Token
from vestal.supervision import FakeClock


def accepted(answer_id: str, key: str | None = None, body: bytes = b"{}", **changed: Any) -> Accepted:
    """Return a request that was accepted."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "id": answer_id,
        "created_s": 1_000_000_000.0,
        "method": "POST",
        "path": "/v1/chat/completions",
        "query": "",
        "headers": (("content-type", "application/json"),),
        "body": body,
        "seed": 7,
        "key_digest": key,
        "body_digest": "b0d1",
        "version": "1.0",
    }
    return Accepted(**(fields | changed))


def token(index: int, text: str = "word", answer: int = 0) -> Event:
    """Return an event that the client was given."""
    return Event(answer, Token(id="r", token=1000 + index, text=text, index=index))


class FaultyFolder(AnswerFolder):
    """A folder whose disk fails with `error` while that is set.

    With `room_bytes`, so many bytes can still be written before it fails.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.error: int | None = None
        self.room_bytes = 0

    def _fail(self) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))

    def create(self, name: FileName) -> int:
        """Make a file, or fail: a full disk has room for no further file."""
        if self.room_bytes == 0:
            self._fail()
        return super().create(name)

    def reopen(self, name: FileName, size_bytes: int) -> int:
        """Open a file, or fail where the disk is read-only."""
        if self.error in (errno.EROFS, errno.EIO):
            self._fail()
        return super().reopen(name, size_bytes)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write as much as there is room for, or fail."""
        if self.error is None:
            return super().write(descriptor, data, offset)
        if self.room_bytes == 0:
            self._fail()
        written = super().write(descriptor, data[: self.room_bytes], offset)
        self.room_bytes -= written
        return written

    def rename(self, name: FileName, new_name: FileName) -> None:
        """Rename a file, or fail where the disk is read-only."""
        if self.error in (errno.EROFS, errno.EIO):
            self._fail()
        super().rename(name, new_name)

    def remove(self, name: FileName) -> None:
        """Delete a file, or fail where the disk is read-only."""
        if self.error in (errno.EROFS, errno.EIO):
            self._fail()
        super().remove(name)


class Logs:
    """Opens logs in one folder, one after the other, and collects their events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    async def open(self, folder: AnswerFolder | None = None, **limits: Any) -> AnswerLog:
        """Open the log, kept for an hour unless `limits` say otherwise; a `keep_s` of 0 switches it off."""
        if limits.get("keep_s") == 0:
            return LockOnlyLog(self.path)
        bounds = {"keep_s": 3600.0, "max_bytes": 1 << 28, "max_answers": 1000} | limits
        return await AnswerLog.open(folder or self.path, clock=self.clock, emit=self.emit, **bounds)

    def emit(self, event: str, cause: str = "", **fields: Any) -> None:
        """Collect an event."""
        self.events.append((event, cause, fields))

    def named(self, event: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the events of a name."""
        return [emitted for emitted in self.events if emitted[0] == event]

    def files(self) -> dict[str, str]:
        """Return the state of each answer's file, `open` or `ended`, by its id."""
        names = [FileName.parse(path.name) for path in self.path.iterdir()] if self.path.is_dir() else []
        return {name.id: "ended" if name.ended else "open" for name in names if name is not None}
