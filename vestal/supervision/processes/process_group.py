"""Launch, adopt and end whole process groups.

Each process is the leader of its own session and group, so its PID is the group's number. When the leader
ends, the rest of its group is killed before the leader is reaped, because until then no other process can get
that number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vestal.best_effort.files import EXHAUSTED
from vestal.best_effort.output import LOG_VARIABLE
from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.errors import LaunchError
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import log_file
from vestal.supervision.processes.exit_watch import wait_for_exit
from vestal.supervision.processes.identity import ProcessIdentity, identify, is_of_this_boot
from vestal.supervision.processes.start_time import has_ended, start_time

PID_FILE_VARIABLE = "VESTAL_PID_FILE"
"""The environment variable with the path of a child's PID file, by which the child is found if the file is
gone.
"""

GROUP_GONE_TIMEOUT_S = 0.5
REAPABLE_WITHIN_S = 0.5
_POLL_S = 0.002


class ProcessGroup:
    """A ProcessHandle for a process group. The number of the group is the PID of its leader, and `identity`
    is the leader's identity. `popen` is the leader's Popen if this process launched the leader; it is None if
    an earlier supervisor did. `terminate` and `kill` signal the whole group. If a process that an earlier
    supervisor launched leads no group, they signal that process alone.
    """

    def __init__(self, identity: ProcessIdentity, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self._popen = popen
        self._leads = popen is not None or _leads_group(identity.pid)
        self._reaped = False

    @property
    def pid(self) -> int:
        """Return the PID of the leader, which is the number of the group."""
        return self.identity.pid

    @property
    def start_time(self) -> float:
        """Return when the group's leader started: in seconds since boot on Linux, and since 1970 elsewhere.
        Return 0 if that could not be read, as when the leader ended at once.
        """
        return self.identity.start_time

    async def wait(self) -> ExitStatus:
        """Wait for the leader to end, kill the rest of its group, reap the leader, and return its status."""
        await wait_for_exit(self.pid)
        self._signal_group(signal.SIGKILL)
        status = await self._reap()
        if self._leads:
            await wait_until_group_gone(self.pid)
        return status

    def terminate(self) -> None:
        """Send SIGTERM to the group, then SIGCONT, because a suspended process could not act on SIGTERM."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the group."""
        self._signal(signal.SIGKILL)

    def detach(self) -> None:
        """Leave the process running, without Popen's warning about a child that still runs."""
        if self._popen is not None:
            self._popen.returncode = 0

    def _signal(self, number: int) -> None:
        if self._leads:
            self._signal_group(number)
        elif self.identity.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _signal_group(self, number: int) -> None:
        if self._reaped or not self._leads or not self._number_is_ours():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self.pid, number)

    def _number_is_ours(self) -> bool:
        """Return whether the number of the group, its leader's PID, has not passed to another process.

        A leader that another supervisor launched (an adopted one) is reaped by its own parent. After that,
        another process may get the PID, but with another start time. Return True also if no process has the
        PID, or if that cannot be read.
        """
        return self._popen is not None or start_time(self.pid) in (None, self.start_time)

    async def _reap(self) -> ExitStatus:
        """Reap the leader, whose exit was announced, and return its exit status; return an unknown status if
        it is not a child of this process. macOS announces an exit a moment before it can be reaped.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REAPABLE_WITHIN_S
        while (status := self._try_reap()) is None and loop.time() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_POLL_S)
        self._reaped = True
        self.detach()
        return status or ExitStatus()

    def _try_reap(self) -> ExitStatus | None:
        """Reap the leader and return its exit status: unknown if it is not a child of this process. Return
        None if it cannot be reaped yet. An adopted leader is a child of this process if the supervisor that
        launched it ran in this process too.
        """
        try:
            pid, wait_status = os.waitpid(self.pid, 0 if self._popen is not None else os.WNOHANG)
        except ChildProcessError:
            return ExitStatus()
        return _exit_status(wait_status) if pid else None


def _exit_status(wait_status: int) -> ExitStatus:
    code = os.waitstatus_to_exitcode(wait_status)
    return ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)


def _leads_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


async def wait_until_group_gone(group: int, timeout_s: float = GROUP_GONE_TIMEOUT_S) -> bool:
    """Wait until no process of a killed group lives, so that a new child can have its port. Return False if
    one still lives after `timeout_s`.

    This takes a millisecond or so. Zombies do not count, because they hold no port, and the process that
    reaps orphans may be slow, or missing in a container.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    alive: int | None = None
    while True:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            return True
        try:
            if sys.platform == "linux" and (alive is None or not _lives_in_group(alive, group)):
                alive = _living_member(group)
                if alive is None:
                    return True
        except OSError:  # no descriptor is left to look
            alive = None
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)


def _living_member(group: int) -> int | None:
    """Return the PID of a process of the group that is not a zombie, or None (Linux only). Raises OSError if
    no descriptor is left.
    """
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return next((pid for pid in pids if _lives_in_group(pid, group)), None)


def _lives_in_group(pid: int, group: int) -> bool:
    """Return whether the process is in the group and not a zombie (Linux only). Raises OSError if no
    descriptor is left.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            state, _, of_group = stat.read().rpartition(b") ")[2].split()[:3]
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            raise
        return False
    return int(of_group) == group and state not in (b"Z", b"X")


async def spawn(
    spec: ChildSpec, *, pass_fds: Sequence[int] = (), extra_env: Mapping[str, str] | None = None
) -> ProcessGroup:
    """Run the spec's command in its own session and group. Raises LaunchError, which says why it cannot run.

    `extra_env` is added to the child's environment, and the descriptors `pass_fds` stay open in the child.
    """
    env = {**os.environ, **_own_files(spec), **(spec.env or {}), **(extra_env or {})}
    popen = _popen(spec, env, (*spec.pass_fds, *pass_fds))
    # A process that has ended already has no start time; wait() returns its exit status all the same.
    identity = identify(popen.pid) or ProcessIdentity(popen.pid, 0.0)
    return ProcessGroup(identity, popen)


def _own_files(spec: ChildSpec) -> dict[str, str]:
    """Return the environment variables with the paths of the child's PID file and log, "" for none.

    They replace the variables that the child would inherit from its parent.
    """
    return {
        PID_FILE_VARIABLE: "" if spec.pid_file is None else str(spec.pid_file),
        LOG_VARIABLE: "" if spec.log_path is None else str(spec.log_path),
    }


def _popen(spec: ChildSpec, env: Mapping[str, str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    log = None if spec.log_path is None else log_file.open_log(spec.log_path)
    try:
        return subprocess.Popen(
            spec.command,
            env=dict(env),
            cwd=spec.cwd or _folder_if_deleted(),
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    except OSError as error:
        raise LaunchError(_why_not(spec, error), child=spec.name) from error
    finally:
        if log is not None:
            os.close(log)


def _folder_if_deleted() -> str | None:
    """Return `/` if the folder that this process runs in was deleted, since many programs fail without a
    working folder. Return None if it is there: a child may inherit it.
    """
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None


def _why_not(spec: ChildSpec, error: OSError) -> str:
    program = spec.command[0]
    if spec.cwd is not None and not Path(spec.cwd).is_dir():
        return f"the folder {spec.cwd} to run {program} in does not exist"
    if isinstance(error, FileNotFoundError):
        return f"the program {program} was not found; install it, or give its full path"
    if isinstance(error, PermissionError):
        return f"the program {program} may not be run: {error.strerror}"
    return f"the program {program} could not be run: {error.strerror or error}"


class DefaultLauncher:
    """Launches the processes of child specs that name no launcher."""

    async def launch(self, spec: ChildSpec) -> ProcessGroup:
        """Start the spec's command in its own session and process group, and return the group without waiting
        for its end. Raises LaunchError, which says why the command cannot run.
        """
        return await spawn(spec)


def adopt(identity: ProcessIdentity) -> ProcessGroup:
    """Return a handle for a running process that another supervisor launched."""
    return ProcessGroup(identity)


def reap(identity: ProcessIdentity) -> ExitStatus | None:
    """Reap the process and return its exit status, if it is a child of the calling process and has ended.
    Otherwise return None, without waiting for its end.
    """
    try:
        pid, wait_status = os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return _exit_status(wait_status) if pid else None


def kill_orphaned_group(identity: ProcessIdentity) -> bool:
    """Kill what is left of the process group whose leader was `identity` and has ended. Return whether
    anything was left to kill.

    Kill nothing if a process with the leader's PID is running, or if the leader was started before the
    machine's last start, because the group with this number may then belong to a stranger.
    """
    if not is_of_this_boot(identity) or identity.pid <= 1 or not has_ended(identity.pid):
        return False
    try:
        os.killpg(identity.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
