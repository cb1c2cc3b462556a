"""Standard output and standard error that never raise: what cannot be written is dropped and counted.

Logs are files. On a full disk, `print` and `logging` would raise in any code that writes a line, even while
the interpreter exits. A log that was deleted is created again, because otherwise the deleted file would
receive all further lines and still take up disk space. The number of dropped lines is in `failures.FAILURES`,
and in a line that is written to the log as soon as that is possible again.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import stat
import sys
import threading
import time
from typing import TextIO

from vestal.best_effort.failures import FAILURES, WriteFailures

LOG = "log"
LOG_VARIABLE = "VESTAL_LOG_FILE"
"""Environment variable with the path of a child's log, for a child whose log could not be opened at its
launch.
"""


def protect(component: str) -> None:
    """Replace sys.stdout and sys.stderr by streams that never raise. Output that cannot be written is
    dropped, and a later line says how much. Call this before anything is logged.

    `component` names this process in that line.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        descriptor = _descriptor_of(stream)
        if descriptor is not None and not isinstance(getattr(stream, "buffer", None), BestEffortOutput):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
            output = BestEffortOutput(descriptor, component)
            FAILURES.retries.append(output.retry)
            setattr(sys, name, open_text(output))


def open_text(output: BestEffortOutput) -> TextIO:
    """Return a text stream that passes each line to `output` as soon as it is complete."""
    # A TextIOWrapper calls `write` only, which both kinds of binary stream have.
    return io.TextIOWrapper(output, "utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[type-var]


def write_line(stream: TextIO | None, line: str) -> None:
    """Write one line in one piece, and flush. A failure is counted, not raised."""
    try:
        if stream is not None:
            stream.write(line + "\n")  # in one call, because other threads write too
            stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream is closed
        FAILURES.failed(LOG, error)
    else:
        FAILURES.succeeded(LOG)


class BestEffortOutput(io.RawIOBase):
    """Writes to a file descriptor, and drops what cannot be written. `failures` counts the dropped lines.

    The first write that succeeds after a failure is preceded by a line that says how much was dropped, and
    that names this process as `component`. If the descriptor is that of a log file, the file's path is looked
    up at the beginning. A log that is deleted later is created again under that path, because nobody could
    read the deleted one, and its disk space would stay in use.
    """

    def __init__(self, descriptor: int, component: str, failures: WriteFailures = FAILURES) -> None:
        super().__init__()
        self._descriptor, self._component, self._failures = descriptor, component, failures
        self._path = _path_of(descriptor)
        self._lock = threading.RLock()
        self._dropped_lines = 0
        self._dropped_since = 0.0
        self._error: OSError | None = None
        self._line_is_torn = False

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Write all of `data` or drop it, and return its length in either case."""
        content = bytes(data)
        with self._lock:
            self._reopen_if_deleted()
            try:
                if self._error is not None:
                    self._write_all(self._note(self._error))
                    self._error = None
                self._write_all(content)
            except OSError as error:
                self._drop(content, error)
            else:
                self._failures.succeeded(LOG, target=self._descriptor)
        return len(content)

    def retry(self) -> None:
        """If anything was dropped, try to write the line that says how much."""
        if self._error is not None:
            self.write(b"")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def _write_all(self, content: bytes) -> None:
        """Write `content`. Raises OSError if that fails; if the disk becomes full, a part of a line may have
        been written.
        """
        if self._line_is_torn:
            content = b"\n" + content
        while content:
            written = os.write(self._descriptor, content)
            self._line_is_torn, content = True, content[written:]
        self._line_is_torn = False

    def _drop(self, content: bytes, error: OSError) -> None:
        if self._error is None:
            self._dropped_lines, self._dropped_since = 0, time.time()
        self._error = error
        lines = max(1, content.count(b"\n")) if content else 0
        self._dropped_lines += lines
        self._failures.failed(LOG, error, count=lines, target=self._descriptor)

    def _note(self, error: OSError) -> bytes:
        """Return a log line that says how many lines were dropped, since when, and `error` as the cause."""
        fields = {"ts": round(time.time(), 3), "component": self._component, "event": "log_lines_dropped"}
        dropped = {"lines": self._dropped_lines, "since": round(self._dropped_since, 3)}
        return json.dumps(fields | {"cause": error.strerror or str(error)} | dropped).encode() + b"\n"

    def _reopen_if_deleted(self) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            status = os.fstat(self._descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_nlink:
                return
            fresh = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.dup2(fresh, self._descriptor)
            finally:
                os.close(fresh)
            self._line_is_torn = False


def _descriptor_of(stream: object) -> int | None:
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return None


def _path_of(descriptor: int) -> str | None:
    """Return the path of the log that is open for appending as `descriptor`; None for anything else, such as
    a terminal.

    For the null device, return the path in the environment variable LOG_VARIABLE, or None if it is unset: the
    parent process opens the null device in place of a log that cannot be opened.
    """
    try:
        status = os.fstat(descriptor)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
            return os.environ.get(LOG_VARIABLE) or None
        if not stat.S_ISREG(status.st_mode):
            return None
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            return None
        if sys.platform == "darwin":
            return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
    except OSError:
        return None
