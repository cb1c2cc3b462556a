"""One agent for each home: a lock that the system frees when its holder dies, and a file that names it."""

import os
from pathlib import Path

from host_agent.errors import AlreadyRunning
from vestal.config import Home
from vestal.platform.file_lock import try_lock
from vestal.supervision import Identity, read_pid_file, write_pid_file
from vestal.supervision.processes.identity import identify


def pid_file(home: Home) -> Path:
    return home.run / "agent.json"


def running(home: Home) -> Identity | None:
    """The agent of this home, if one runs."""
    identity = read_pid_file(pid_file(home))
    return identity if identity and identity.alive() else None


class SingleInstance:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """AlreadyRunning names the other agent."""
        self._descriptor = try_lock(self._home.run / "agent.lock")
        if self._descriptor is None:
            other = read_pid_file(pid_file(self._home))
            who = f" (PID {other.pid})" if other else ""
            raise AlreadyRunning(f"An agent serves {self._home.root} already{who}: `vestal status` shows it.")
        identity = identify(os.getpid())
        assert identity
        write_pid_file(pid_file(self._home), identity)

    def release(self) -> None:
        if self._descriptor is not None:
            pid_file(self._home).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
