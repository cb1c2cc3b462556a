"""The one process of a child, with its PID file and its log.

A process that an earlier supervisor launched, and that still runs, is adopted. It is found by the PID file,
or else by the spec's `find`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from pathlib import Path

from vestal.supervision.child_spec import ChildSpec, ProcessHandle
from vestal.supervision.errors import LaunchError, SupervisionError
from vestal.supervision.lifecycle.inputs import Launched, LaunchFailed
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import log_file
from vestal.supervision.processes.ended_process import EndedProcess
from vestal.supervision.processes.identity import ProcessIdentity, age_s, boot_id, identify
from vestal.supervision.processes.pid_file import KeptPidFile, read_pid_file
from vestal.supervision.processes.process_group import (
    DefaultLauncher,
    adopt,
    kill_orphaned_group,
    reap,
)

_log = logging.getLogger(__name__)
_MAX_LAST_LINE_CHARS = 500


class ChildProcess:
    """Launches or finds the process of a child, waits for its end, and signals it.

    `emit(event, cause)` is called for minor events that the lifecycle need not know of.
    """

    def __init__(self, spec: ChildSpec, emit: Callable[[str, str], object]) -> None:
        self._spec = spec
        self._emit = emit
        self._launcher = spec.launcher or DefaultLauncher()
        self._handle: ProcessHandle | None = None
        self._log_offset = 0
        self._pid_file = None if spec.pid_file is None else KeptPidFile(spec.pid_file)

    @property
    def handle(self) -> ProcessHandle | None:
        """Return the child's process; None before one is launched or found, and after it has ended."""
        return self._handle

    def find_running(self, others: Container[int] = ()) -> tuple[int, float] | None:
        """Find the child's process that an earlier supervisor launched: the one that the PID file names, or
        else the one that the spec's `find` finds.

        Return its PID and its age in seconds; None if there is none, or if the spec has no PID file. `others`
        are PIDs that `find` ignores: those of successors and predecessors in handovers.

        If the process in the PID file has ended, the rest of its process group is killed, and `find` is
        called. But if that process is a child of the calling process that nobody has reaped, it is reaped and
        returned as if it still ran; `wait` then returns its exit status.
        """
        path = self._spec.pid_file
        if path is None:
            return None
        identity = read_pid_file(path)
        if identity is None or not identity.alive():
            self._remove_leftovers(path, identity)
            if identity is not None and (status := reap(identity)) is not None:
                self._handle = EndedProcess(identity, status)
                return identity.pid, age_s(identity)
            pid = self._spec.find(path, others) if self._spec.find is not None else None
            identity = None if pid is None else identify(pid)
        if identity is None:
            return None
        self._handle = self.adopt(identity)
        self._log_offset = 0
        self._write_pid_file(identity)
        return identity.pid, age_s(identity)

    def adopt(self, identity: ProcessIdentity) -> ProcessHandle:
        """Return a handle for a running process that an earlier supervisor launched for this child."""
        adopt_process: Callable[[ProcessIdentity], ProcessHandle] = getattr(self._launcher, "adopt", adopt)
        return adopt_process(identity)

    def _remove_leftovers(self, path: Path, identity: ProcessIdentity | None) -> None:
        if identity is None:
            return
        if kill_orphaned_group(identity):
            self._emit("leftovers_killed", f"PID {identity.pid}, which led their group, is gone")
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    async def launch_run(
        self, run: int, more_env: Callable[[], Mapping[str, str]]
    ) -> Launched | LaunchFailed:
        """Launch the child's process number `run`. Return Launched; if anything fails, return LaunchFailed
        with the reason instead of raising an exception. The caller passes the result to the child's
        lifecycle.

        `more_env` returns environment variables that are added to those of the spec. It is called once the
        spec's `before_launch` has returned.
        """
        try:
            handle = await self.launch_beside(self._spec, more_env)
        except LaunchError as error:
            return LaunchFailed(run, error.message)
        self._handle = handle
        self._write_pid_file(_identity(handle))
        return Launched(run, handle.pid)

    async def launch_beside(
        self, spec: ChildSpec, more_env: Callable[[], Mapping[str, str]]
    ) -> ProcessHandle:
        """Launch a process as `spec` says, such as a successor, and return its handle. The child's present
        process, if there is one, stays the child's process. Any failure is raised as a LaunchError with the
        reason.

        `more_env` returns environment variables that are added to those of the spec. It is called once the
        spec's `before_launch` has returned.
        """
        timeout_s = spec.policy.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                if spec.before_launch is not None:
                    await spec.before_launch()
                if spec.log_path is not None:
                    self._log_offset = log_file.rotate_if_large(spec.log_path)
                return await self._launcher.launch(replace(spec, env={**(spec.env or {}), **more_env()}))
        except TimeoutError as error:
            why = f"the launcher did not finish within {timeout_s:g} s"
            raise LaunchError(why, child=spec.name) from error
        except (SupervisionError, OSError) as error:
            raise LaunchError(str(error), child=spec.name) from error
        except Exception as error:
            # A launcher is the caller's code: its error is a failed start of this child.
            _log.exception("the launcher of %s failed", spec.name)
            raise LaunchError(f"the launcher failed: {error!r}", child=spec.name) from error

    def replace(self, successor: ProcessHandle) -> ProcessHandle:
        """Make `successor` the child's process, and return the process that was the child's before."""
        predecessor, self._handle = self._handle, successor
        assert predecessor is not None
        self._write_pid_file(_identity(successor))
        return predecessor

    async def wait(self) -> tuple[ExitStatus, str]:
        """Wait for the process to end, and return its exit status and the last line of its log."""
        handle = self._handle
        assert handle is not None
        status = await handle.wait()
        self._handle = None
        if self._pid_file is not None:
            self._pid_file.remove_if_of(handle.pid)
        return status, self._last_line()

    def terminate(self) -> None:
        """Send SIGTERM to the process group, if there is a process."""
        if self._handle is not None:
            self._handle.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the process group, if there is a process."""
        if self._handle is not None:
            self._handle.kill()

    def keep_files(self) -> None:
        """Write the PID file of a running process again if the file is missing or was changed."""
        if self._spec.log_path is not None:
            log_file.notice_if_writable(self._spec.log_path)
        if self._pid_file is not None and self._pid_file.keep():
            self._emit("pid_file_written_again", str(self._pid_file.path))

    def detach(self) -> None:
        """Stop watching the process, and leave it running."""
        if self._handle is not None:
            self._handle.detach()

    def _write_pid_file(self, identity: ProcessIdentity) -> None:
        if self._pid_file is not None and (error := self._pid_file.write_identity(identity)):
            self._emit("pid_file_not_written", str(error))

    def _last_line(self) -> str:
        if self._spec.log_path is None:
            return ""
        lines = log_file.last_lines(self._spec.log_path, self._log_offset, 1)
        return lines[0][:_MAX_LAST_LINE_CHARS] if lines else ""

    def last_words(self) -> str:
        """Return the last line of the child's log that is not an event in JSON, or the last of all if all are
        events. Only the last ten lines since the last launch count. Return "" if there is no line.

        A line that is not an event is preferred, because a program that cannot start says so in plain words.
        An event may come from the program's predecessor, which writes to the same log.
        """
        if self._spec.log_path is None:
            return ""
        lines = log_file.last_lines(self._spec.log_path, self._log_offset)
        words = [line for line in lines if not line.startswith("{")] or lines
        return words[-1][:_MAX_LAST_LINE_CHARS] if words else ""


def _identity(handle: ProcessHandle) -> ProcessIdentity:
    return ProcessIdentity(handle.pid, handle.start_time, boot_id())
