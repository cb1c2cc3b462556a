"""Logs that keep nothing, for a gateway whose answers do not outlive it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mlx_server.gateway.answer_log import earlier_files
from mlx_server.gateway.answer_log.folder import AnswerFolder
from mlx_server.gateway.answer_log.log import AnswerLog
from mlx_server.gateway.answer_log.records import Accepted, Record


class NoLog(AnswerLog):
    """A log that keeps nothing."""

    def __init__(self) -> None:
        """Make a log without a folder and without a thread."""

    def begin(self, accepted: Accepted, body: Sequence[bytes] = ()) -> None:
        """Do nothing."""

    def append(self, answer_id: str, record: Record) -> None:
        """Do nothing."""

    def ended(self, answer_id: str) -> None:
        """Do nothing."""

    def forget(self, answer_id: str) -> None:
        """Do nothing."""

    async def records(self, answer_id: str) -> list[Record] | None:
        """Return None."""
        return None

    def size_bytes(self, answer_id: str) -> int:
        """Return 0."""
        return 0

    async def data(self, answer_id: str) -> bytes | None:
        """Return None."""
        return None

    def unfinished(self) -> list[str]:
        """Return an empty list."""
        return []

    def id_of_key(self, key_digest: str) -> str | None:
        """Return None."""
        return None

    def status(self, answer_id: str) -> Literal["open", "ended", "expired"] | None:
        """Return None."""
        return None

    async def flush(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def sweep(self) -> None:
        """Do nothing."""


class LockOnlyLog(NoLog):
    """A log that keeps nothing, but has the folder's lock, for which a successor waits.

    It is used if the setting `mlx.keep_answers_s` is 0, and deletes what earlier gateways left. Raises
    LogInUse.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._folder = AnswerFolder(path)
        earlier_files.clear(self._folder)
        with contextlib.suppress(OSError):  # if nothing can be written, nothing need be locked
            self._folder.lock()

    async def close(self) -> None:
        """Release the lock."""
        self._folder.unlock()
