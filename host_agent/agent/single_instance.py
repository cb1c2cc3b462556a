"""One agent for each home: a lock that the system frees when the agent dies, and a PID file that names it."""

import os
from pathlib import Path

from host_agent.errors import AlreadyRunning
from vestal.config import Home
from vestal.platform.file_lock import try_lock
from vestal.supervision import ProcessIdentity, read_pid_file, write_pid_file
from vestal.supervision.processes.identity import identify


def pid_file(home: Home) -> Path:
    """Return the path of the agent's PID file."""
    return home.run / "agent.json"


def running(home: Home) -> ProcessIdentity | None:
    """Return the process of the agent that runs for this home, or None."""
    identity = read_pid_file(pid_file(home))
    return identity if identity and identity.alive() else None


class SingleInstance:
    """Holds the lock from `acquire` to `release`, or until this process ends."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write the PID file. Raises AlreadyRunning, which names the other agent."""
        self._descriptor = try_lock(self._home.run / "agent.lock")
        if self._descriptor is None:
            other = read_pid_file(pid_file(self._home))
            pid = f" (PID {other.pid})" if other else ""
            raise AlreadyRunning(f"An agent already serves {self._home.root}{pid}: `vestal status` shows it.")
        identity = identify(os.getpid())
        assert identity
        write_pid_file(pid_file(self._home), identity)

    def release(self) -> None:
        """Delete the PID file and free the lock."""
        if self._descriptor is not None:
            pid_file(self._home).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
