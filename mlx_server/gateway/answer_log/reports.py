"""Report from the writing thread to the event loop: emit events about the disk, and tell the log which
answers are lost.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.folder import WHAT
from vestal.best_effort.failures import FAILURES

Emit = Callable[..., object]
"""A function that writes an event: `emit(event, cause, **fields)`."""

_REMEDIES = {
    errno.ENOSPC: "Free some disk space.",
    errno.EDQUOT: "Free some disk space, or have the quota raised.",
    errno.EROFS: "The file system is read-only: check the disk.",
    errno.EIO: "The disk may be failing: check it.",
    errno.ETIMEDOUT: "Check what else uses the disk.",
}
_OTHER_REMEDY = "See that the gateway may write there."


class WritingReports:
    """Emits one event when writing begins to fail, and one when it works again.

    The writing thread calls the methods, except `too_slow`; their effects take place in the event loop in
    which the object was created. `lose` is called with the name of each file whose answer is lost.
    """

    def __init__(self, folder: Path, emit: Emit, lose: Callable[[FileName], None]) -> None:
        self._folder, self._emit, self._lose = folder, emit, lose
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    def writing_failed(self, error: OSError) -> None:
        """Report that a write failed with `error`. Only the first failure after a success emits an event."""
        self._soon(self._say_stopped, error)

    def writing_works(self) -> None:
        """Report that a write succeeded. Only the first success after a failure emits an event."""
        self._soon(self._say_resumed)

    def answer_lost(self, name: FileName) -> None:
        """Report that an answer is lost because its file could not be written; the file is deleted."""
        self._soon(self._lose, name)

    def too_slow(self) -> None:
        """Report that too many bytes wait for the disk. Only the event loop calls this method."""
        error = OSError(errno.ETIMEDOUT, "too much waits for the disk, which is slow or full")
        FAILURES.failed(WHAT, error)
        self._say_stopped(error)

    def _say_stopped(self, error: OSError) -> None:
        if self._stopped:
            return
        self._stopped = True
        cause = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, _OTHER_REMEDY)
        effect = "Requests are served, but those that run now may not survive the gateway."
        self._emit("answer_log_stopped", f"{self._folder} cannot be written: {cause}. {remedy} {effect}")

    def _say_resumed(self) -> None:
        if self._stopped:
            self._stopped = False
            self._emit("answer_log_resumed", f"{self._folder} can be written again.")

    def _soon(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the event loop has ended, and with it the gateway
            return
