"""A child's log: appended to, turned over at a start when it has grown, and read back for last words."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 8192


def turn_over(path: Path, max_bytes: int = MAX_BYTES) -> int:
    """Makes the folder, moves a log past `max_bytes` to `.1`; returns where the next run's lines begin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= max_bytes:
        return size
    os.replace(path, path.with_name(path.name + ".1"))
    return 0


def open_log(path: Path) -> int:
    """A file descriptor that appends. The caller closes it."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def last_lines(path: Path, since: int = 0, count: int = 10) -> list[str]:
    """The last `count` lines with something on them, written from byte `since` on."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            start = max(0, min(since, end), end - _TAIL_BYTES)
            log.seek(start)
            told = log.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in told.splitlines() if line.strip()][-count:]
