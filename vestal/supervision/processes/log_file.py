"""The log of a child: append to it, rotate it at a start if it is large, and read its last lines."""

from __future__ import annotations

import os
from pathlib import Path

from vestal.best_effort.failures import FAILURES
from vestal.best_effort.files import make_private_folder

MAX_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 8192


def rotate_if_large(path: Path, max_bytes: int = MAX_BYTES) -> int:
    """Move a log that exceeds `max_bytes` to `.1`, and return the offset at which the next run's lines begin.

    A missing folder is created, readable by its owner only. A log that cannot be moved continues to grow.
    """
    try:
        make_private_folder(path.parent)
        size = path.stat().st_size
    except OSError:
        return 0
    if size <= max_bytes:
        return size
    try:
        os.replace(path, path.with_name(path.name + ".1"))
    except OSError:
        return size
    return 0


def open_log(path: Path) -> int:
    """Open the log for appending and return its file descriptor, which the caller closes.

    If it cannot be opened, open the null device instead, because the process matters more than its log.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        FAILURES.failed("log", error, target=path)
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def notice_if_writable(path: Path) -> None:
    """If the log can be written, record in `FAILURES` that an earlier failure to open it is over.

    The supervisor itself does not open the log again before the next launch: a child that was launched
    without its log opens the file itself once that is possible (see `vestal.best_effort.output`).
    """
    if os.access(path, os.W_OK):
        FAILURES.succeeded("log", target=path)


def last_lines(path: Path, since: int = 0, count: int = 10) -> list[str]:
    """Return the last `count` non-empty lines after byte offset `since`; [] if the log cannot be read."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            start = max(0, min(since, end), end - _TAIL_BYTES)
            log.seek(start)
            text = log.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
