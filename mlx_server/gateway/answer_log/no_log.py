"""Answer logs that store nothing, for a gateway whose answers do not outlive it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mlx_server.gateway.answer_log import earlier_files
from mlx_server.gateway.answer_log.folder import AnswerFolder
from mlx_server.gateway.answer_log.log import AnswerLog
from mlx_server.gateway.answer_log.records import Accepted, Record


class NoLog(AnswerLog):
    """An answer log that stores nothing."""

    def __init__(self) -> None:
        """Create a log without a folder and without a thread."""

    def begin(self, accepted: Accepted, body: Sequence[bytes] = ()) -> None:
        """Do nothing."""

    def append(self, answer_id: str, record: Record) -> None:
        """Do nothing."""

    def append_packed(self, answer_id: str, data: bytes) -> None:
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
    """A log that stores nothing, but holds the folder's lock, so that a successor waits for this gateway's
    end.

    It is used if the setting `mlx.keep_answers_s` is 0. Its creation deletes the files that earlier gateways
    left, and raises LogInUse if another process uses the folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._folder = AnswerFolder(path)
        earlier_files.clear(self._folder)
        with contextlib.suppress(OSError):  # if the folder cannot be written, it need not be locked
            self._folder.lock()

    def sweep(self) -> None:
        """Renew the lock of the folder if the check of the lock is due. This must be called every few
        seconds.
        """
        if self._folder.is_lock_check_due(time.monotonic()):
            self._folder.renew_lock()

    async def close(self) -> None:
        """Release the lock."""
        self._folder.unlock()
