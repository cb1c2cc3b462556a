"""The PID files by which a later supervisor finds the other processes of a handover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vestal.supervision.processes.identity import ProcessIdentity
from vestal.supervision.processes.pid_file import KeptPidFile, read_pid_file


class HandoverFiles:
    """The PID files of a handover: beyond `gateway.json`, there are `gateway.successor-12.json` and
    `gateway.predecessor-34.json`, with the PIDs.

    A child without a PID file has none of these either.
    """

    def __init__(self, pid_file: Path | None) -> None:
        self._pid_file = pid_file

    def write(self, role: str, identity: ProcessIdentity) -> None:
        """Note the process, whose `role` is "successor" or "predecessor". A full disk prevents nothing."""
        if (path := self._path(role, identity.pid)) is not None:
            KeptPidFile(path).write_identity(identity)

    def remove(self, role: str, pid: int) -> None:
        """Remove the note of this process."""
        if (path := self._path(role, pid)) is not None:
            KeptPidFile(path).remove()

    def found(self, role: str) -> Iterator[ProcessIdentity]:
        """Yield the processes that are noted in this role, whether or not they still run.

        A file in which none is named is removed.
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
