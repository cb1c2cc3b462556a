"""A process that ended before anything could watch it."""

from __future__ import annotations

from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes.identity import ProcessIdentity


class EndedProcess:
    """A ProcessHandle for a process that has ended and was reaped, whose exit status `wait` returns."""

    def __init__(self, identity: ProcessIdentity, status: ExitStatus) -> None:
        self.pid, self.start_time, self._status = identity.pid, identity.start_time, status

    async def wait(self) -> ExitStatus:
        """Return the exit status."""
        return self._status

    def terminate(self) -> None:
        """Do nothing, because the process has ended."""

    def kill(self) -> None:
        """Do nothing, because the process has ended."""

    def detach(self) -> None:
        """Do nothing, because the process has ended."""
