"""Read, write, keep and remove PID files, which hold the identity of a process as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vestal.best_effort.files import KeptFile, write_file
from vestal.supervision.processes.identity import ProcessIdentity

_MAX_PID = 2**31 - 1  # what the system calls take


def read_pid_file(path: Path) -> ProcessIdentity | None:
    """Return the identity in a PID file; None if there is no file, or if it is malformed."""
    try:
        data: Any = json.loads(path.read_text())
        identity = ProcessIdentity(int(data["pid"]), float(data["start_time"]), str(data.get("boot", "")))
    except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError):
        return None
    return identity if 0 < identity.pid <= _MAX_PID else None


def write_pid_file(path: Path, identity: ProcessIdentity) -> None:
    """Replace the file atomically: a reader finds the old one or the new one. Raises OSError if that
    fails.
    """
    write_file(path, _text_of(identity))


class KeptPidFile(KeptFile):
    """The PID file of a process that runs. `keep` writes the file again if it could not be written, or is
    gone.

    Without the file, the next supervisor has to search for the process.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "pid_file")

    def write_identity(self, identity: ProcessIdentity) -> OSError | None:
        """Replace the content of the file by `identity`. Return None, or the error if the file cannot be
        written now: it then stays as it was, and the next call of `keep` tries again.
        """
        return self.write(_text_of(identity))

    def remove_if_of(self, pid: int) -> None:
        """Remove the file if it names `pid`. In any case, stop rewriting it."""
        found = read_pid_file(self.path)
        if found is not None and found.pid == pid:
            self.remove()
        self.forget()


def _text_of(identity: ProcessIdentity) -> str:
    return json.dumps(identity.__dict__)
