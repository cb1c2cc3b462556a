"""Read, write and remove PID files, which hold the identity of a process as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vestal.supervision.processes.identity import ProcessIdentity


def read_pid_file(path: Path) -> ProcessIdentity | None:
    """Return the identity in a PID file; None if there is no file, or if it has another form."""
    try:
        data: Any = json.loads(path.read_text())
        return ProcessIdentity(int(data["pid"]), float(data["start_time"]), str(data.get("boot", "")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_pid_file(path: Path, identity: ProcessIdentity) -> None:
    """Replace the file atomically: a reader finds the old one or the new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(identity.__dict__))
    os.replace(temporary, path)


def remove_pid_file(path: Path, pid: int) -> None:
    """Remove the file if it still names `pid`."""
    found = read_pid_file(path)
    if found is not None and found.pid == pid:
        path.unlink(missing_ok=True)
