"""Find out whether a process has ended. A zombie counts as ended: orphans may be reaped late."""

from __future__ import annotations

import psutil


def has_ended(pid: int) -> bool:
    """Return whether no process with this PID runs; a zombie has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
