"""Allow only one agent for each home: the agent holds a lock, which the system frees if the agent dies.

The home folder itself is locked, because a lock file in `run/` may be deleted while the agent runs. A PID
file names the agent.
"""

import fcntl
import os
from pathlib import Path

from host_agent.errors import AlreadyRunning
from vestal.config import Home
from vestal.platform.file_lock import try_lock
from vestal.platform.processes import vestal_processes
from vestal.supervision import ProcessIdentity, read_pid_file
from vestal.supervision.processes.identity import identify
from vestal.supervision.processes.pid_file import KeptPidFile

AGENT_MODULE = "agent"


def pid_file(home: Home) -> Path:
    """Return the path of the agent's PID file."""
    return home.run / "agent.json"


def running(home: Home) -> ProcessIdentity | None:
    """Return the process of the agent that runs for this home, or None if no agent runs.

    The process table is searched if the PID file is missing or names no living process.
    """
    identity = read_pid_file(pid_file(home))
    if identity and identity.alive():
        return identity
    return _search(home)


def _search(home: Home) -> ProcessIdentity | None:
    for pid, module in vestal_processes.servers_of_home(home.root, home.default_root):
        if module == AGENT_MODULE and pid != os.getpid() and (identity := identify(pid)):
            return identity
    return None


class SingleInstance:
    """The lock that only one agent of a home can hold, from `acquire` to `release` or until the process ends.
    If another agent holds it, `acquire` raises AlreadyRunning at once.

    `inherited` is the file descriptor of the lock if this program has replaced an earlier agent by `execve`,
    which keeps the process and its open files; else None. `pid_file` names the process that holds the lock.
    The agent writes this file again if it is deleted.
    """

    def __init__(self, home: Home, inherited: int | None = None) -> None:
        self._home = home
        self._inherited = inherited  # file descriptor of the lock, if the replaced program left one
        self._descriptor: int | None = None
        self.pid_file = KeptPidFile(pid_file(home))

    def acquire(self) -> None:
        """Take the lock and write the PID file. Raises AlreadyRunning if another agent holds the lock."""
        self._descriptor = _take_inherited(self._inherited) or _lock(self._home)
        if self._descriptor is None:
            other = read_pid_file(pid_file(self._home)) or _search(self._home)
            pid = f" (PID {other.pid})" if other else ""
            raise AlreadyRunning(f"An agent already serves {self._home.root}{pid}: `vestal status` shows it.")
        identity = identify(os.getpid())
        assert identity
        self.pid_file.write_identity(identity)

    @property
    def descriptor(self) -> int | None:
        """Return the file descriptor that holds the lock; None if the lock is not held."""
        return self._descriptor

    def release(self) -> None:
        """Delete the PID file and free the lock."""
        if self._descriptor is not None:
            self.pid_file.remove()
            os.close(self._descriptor)
            self._descriptor = None


def _take_inherited(descriptor: int | None) -> int | None:
    """Return the inherited file descriptor if it holds the lock. Return None if it does not, or if none was
    inherited; the caller must then take the lock itself.
    """
    if descriptor is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(descriptor, False)
    except OSError:
        return None
    return descriptor


def _lock(home: Home) -> int | None:
    """Lock the home folder, or a file in it if the file system cannot lock folders (NFS).

    Return the file descriptor that holds the lock, or None if another process holds it.
    """
    return try_lock(home.root, instead=home.run / "agent.lock")
