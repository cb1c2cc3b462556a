"""The one process of a child, with its PID file and its log.

A process that an earlier supervisor launched, and that still runs, is adopted. It is found by the PID file,
or else by the spec's `find`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from vestal.supervision.child_spec import ChildSpec, ProcessHandle
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import log_file
from vestal.supervision.processes.identity import ProcessIdentity, age_s, boot_id, identify
from vestal.supervision.processes.pid_file import KeptPidFile, read_pid_file
from vestal.supervision.processes.process_group import DefaultLauncher, adopt, kill_orphaned_group

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

    def find_running(self) -> tuple[int, float] | None:
        """Find the process that the PID file names, or else the one that the spec's `find` finds.

        Returns its PID and its age in seconds; None if there is none. If the process in the PID file has
        ended and others of its group still run, they are killed.
        """
        path = self._spec.pid_file
        if path is None:
            return None
        identity = read_pid_file(path)
        if identity is None or not identity.alive():
            self._remove_leftovers(path, identity)
            pid = self._spec.find(path) if self._spec.find is not None else None
            identity = None if pid is None else identify(pid)
        if identity is None:
            return None
        adopt_process = getattr(self._launcher, "adopt", adopt)
        self._handle = adopt_process(identity)
        self._log_offset = 0
        self._write_pid_file(identity)
        return identity.pid, age_s(identity)

    def _remove_leftovers(self, path: Path, identity: ProcessIdentity | None) -> None:
        if identity is None:
            return
        if kill_orphaned_group(identity):
            self._emit("leftovers_killed", f"PID {identity.pid}, which led their group, is gone")
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    async def launch(self) -> int:
        """Launch the process and return its PID. Raises what the launcher raises."""
        if self._spec.log_path is not None:
            self._log_offset = log_file.rotate_if_large(self._spec.log_path)
        self._handle = handle = await self._launcher.launch(self._spec)
        self._write_pid_file(ProcessIdentity(handle.pid, handle.start_time, boot_id()))
        return handle.pid

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
        """Write the PID file of a running process again if it is missing or names another process."""
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
