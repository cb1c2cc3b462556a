"""Processes in their own session and group: made, watched, adopted, and ended whole.

The leader's PID is the group's number. When the leader ends, what is left of its group is killed before the
leader is reaped: until then the number cannot be anyone else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.errors import LaunchError
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import log_file
from vestal.supervision.processes.exit_watch import ended
from vestal.supervision.processes.identity import ProcessIdentity, boot_id, identify, start_time

GROUP_GONE_S = 0.5
_LOOK_AGAIN_S = 0.002


class ProcessGroup:
    """A ProcessHandle for the leader of a group: our own child, or one adopted by its identity."""

    def __init__(self, identity: ProcessIdentity, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self._popen = popen
        self._leads = popen is not None or _leads_group(identity.pid)
        self._reaped = False

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def start_time(self) -> float:
        return self.identity.start_time

    async def wait(self) -> ExitStatus:
        """Reaped (where it is our child) and the rest of its group killed and gone."""
        await ended(self.pid)
        self._signal_group(signal.SIGKILL)
        status = self._reap()
        await self._group_gone()
        return status

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a suspended one could not act on it (systemd: SendSIGCONT=)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def detach(self) -> None:
        """It runs on. Popen would warn of a child still running."""
        if self._popen is not None:
            self._popen.returncode = 0

    def _signal(self, number: int) -> None:
        if self._leads:
            self._signal_group(number)
        elif self.identity.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _signal_group(self, number: int) -> None:
        if self._reaped or not self._leads or not self._is_still_ours():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for zombies only
            os.killpg(self.pid, number)

    def _is_still_ours(self) -> bool:
        """An adopted leader is reaped by its own parent; then the PID could be a stranger's."""
        return self._popen is not None or start_time(self.pid) in (None, self.start_time)

    def _reap(self) -> ExitStatus:
        """An adopted process may still be our child, where the supervisor before lived in this process."""
        try:
            pid, told = os.waitpid(self.pid, 0 if self._popen is not None else os.WNOHANG)
        except ChildProcessError:
            return ExitStatus()
        finally:
            self._reaped = True
            self.detach()
        if pid == 0:
            return ExitStatus()
        code = os.waitstatus_to_exitcode(told)
        return ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)

    async def _group_gone(self) -> None:
        """The killed are gone within a millisecond or so; a new child may want their port."""
        if self._leads:
            await wait_until_group_gone(self.pid)


def _leads_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


async def wait_until_group_gone(group: int, timeout_s: float = GROUP_GONE_S) -> bool:
    """Waits, not for ever: where nobody reaps orphans, a group of zombies stays."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while True:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return True
        if loop.time() >= end:
            return False
        await asyncio.sleep(_LOOK_AGAIN_S)


async def spawn(
    spec: ChildSpec, *, pass_fds: Sequence[int] = (), extra_env: Mapping[str, str] | None = None
) -> ProcessGroup:
    """Runs the spec's command in a session and group of its own. Raises LaunchError, which says why not.

    For launchers that need more than the default: `pass_fds` stay open in the child.
    """
    env = {**os.environ, **(spec.env or {}), **(extra_env or {})}
    popen = _popen(spec, env, pass_fds)
    # A process that has ended already has no start time; wait() returns its exit status all the same.
    identity = identify(popen.pid) or ProcessIdentity(popen.pid, 0.0)
    return ProcessGroup(identity, popen)


def _popen(spec: ChildSpec, env: Mapping[str, str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    log = None if spec.log_path is None else log_file.open_log(spec.log_path)
    try:
        return subprocess.Popen(
            spec.command, env=dict(env), cwd=spec.cwd, pass_fds=tuple(pass_fds), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    except OSError as error:
        raise LaunchError(_why_not(spec, error), child=spec.name) from error
    finally:
        if log is not None:
            os.close(log)


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
    """What a child spec without a launcher uses."""

    async def launch(self, spec: ChildSpec) -> ProcessGroup:
        return await spawn(spec)


def adopt(identity: ProcessIdentity) -> ProcessGroup:
    """A handle for a running process that another supervisor made."""
    return ProcessGroup(identity)


def kill_orphaned_group(identity: ProcessIdentity) -> bool:
    """Kills what is left of the group of a leader that is gone. A number used again since is left alone."""
    same_boot = identity.boot in ("", boot_id())
    if not same_boot or identity.pid <= 1 or start_time(identity.pid) is not None:
        return False
    try:
        os.killpg(identity.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
