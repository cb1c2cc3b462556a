"""A process handle around another one, for launchers whose processes differ in one or two methods."""

from __future__ import annotations

from vestal.supervision.child_spec import ProcessHandle
from vestal.supervision.lifecycle.states import ExitStatus


class HandleWrapper:
    """Passes every call to the wrapped handle. A subclass overrides the methods that differ."""

    def __init__(self, process: ProcessHandle) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Return the PID of the process."""
        return self._process.pid

    @property
    def start_time(self) -> float:
        """Return when the process started: in seconds since boot on Linux, and since 1970 elsewhere."""
        return self._process.start_time

    async def wait(self) -> ExitStatus:
        """Wait until the process has been reaped and its group is gone, and return its exit status."""
        return await self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM to the wrapped process and its process group."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the wrapped process and its process group."""
        self._process.kill()

    def detach(self) -> None:
        """Stop watching the process, and leave it running."""
        self._process.detach()
