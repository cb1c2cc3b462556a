"""Find processes by their home, and find out whether one has ended. A zombie counts as ended: orphans may be
reaped late.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def has_ended(pid: int) -> bool:
    """Return whether no process with this PID runs; a zombie has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the processes that run and have this VESTAL_HOME in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("VESTAL_HOME") == str(home) and not has_ended(process.pid):
                found.append(process)
    return found
