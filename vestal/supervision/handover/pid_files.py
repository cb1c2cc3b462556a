"""The PID files by which a later supervisor finds the successors and predecessors of a child's handovers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vestal.supervision.processes.identity import ProcessIdentity
from vestal.supervision.processes.pid_file import KeptPidFile, read_pid_file


class HandoverFiles:
    """The PID files of the successors and predecessors in a child's handovers. Next to the child's own PID
    file, for example `gateway.json`, there are `gateway.successor-12.json` and `gateway.predecessor-34.json`,
    where 12 and 34 are the PIDs.

    If the child has no PID file (`pid_file` is None), no such files are written.
    """

    def __init__(self, pid_file: Path | None) -> None:
        self._pid_file = pid_file

    def write(self, role: str, identity: ProcessIdentity) -> None:
        """Write the PID file of a successor or predecessor, as `role` says. A failed write raises nothing."""
        if (path := self._path(role, identity.pid)) is not None:
            KeptPidFile(path).write_identity(identity)

    def remove(self, role: str, pid: int) -> None:
        """Remove the PID file of the successor or predecessor (`role`) with this PID, if there is one."""
        if (path := self._path(role, pid)) is not None:
            KeptPidFile(path).remove()

    def found(self, role: str) -> Iterator[ProcessIdentity]:
        """Yield the processes whose PID files have this role, whether or not they still run.

        A file that names no process is removed.
        """
        if self._pid_file is None:
            return
        for path in sorted(self._pid_file.parent.glob(f"{self._pid_file.stem}.{role}-*.json")):
            identity = read_pid_file(path)
            if identity is None:
                KeptPidFile(path).remove()
            else:
                yield identity

    def _path(self, role: str, pid: int) -> Path | None:
        if self._pid_file is None:
            return None
        return self._pid_file.with_name(f"{self._pid_file.stem}.{role}-{pid}.json")
