"""The one process of a child, with its PID file and its log.

A process that an earlier supervisor launched, and that still runs, is found by the PID file and adopted.
"""

from __future__ import annotations

from collections.abc import Callable

from vestal.supervision.child_spec import ChildSpec, ProcessHandle
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import log_file
from vestal.supervision.processes.identity import ProcessIdentity, age_s, boot_id
from vestal.supervision.processes.pid_file import read_pid_file, remove_pid_file, write_pid_file
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

    def find_running(self) -> tuple[int, float] | None:
        """Find the process that the PID file names, and return its PID and its age in seconds.

        Returns None if there is none. If that process has ended and others of its group are left, they are
        killed.
        """
        path = self._spec.pid_file
        identity = None if path is None else read_pid_file(path)
        if path is None or identity is None:
            return None
        if identity.alive():
            adopt_process = getattr(self._launcher, "adopt", adopt)
            self._handle = adopt_process(identity)
            self._log_offset = 0
            return identity.pid, age_s(identity)
        if kill_orphaned_group(identity):
            self._emit("leftovers_killed", f"PID {identity.pid}, which led their group, is gone")
        path.unlink(missing_ok=True)
        return None

    async def launch(self) -> int:
        """Launch the process and return its PID. Raises what the launcher raises."""
        if self._spec.log_path is not None:
            self._log_offset = log_file.rotate_if_large(self._spec.log_path)
        self._handle = handle = await self._launcher.launch(self._spec)
        self._write_pid_file(handle)
        return handle.pid

    async def wait(self) -> tuple[ExitStatus, str]:
        """Wait for the process to end, and return its exit status and the last line of its log."""
        handle = self._handle
        assert handle is not None
        status = await handle.wait()
        self._handle = None
        if self._spec.pid_file is not None:
            remove_pid_file(self._spec.pid_file, handle.pid)
        return status, self._last_line()

    def terminate(self) -> None:
        """Send SIGTERM to the process group, if there is a process."""
        if self._handle is not None:
            self._handle.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the process group, if there is a process."""
        if self._handle is not None:
            self._handle.kill()

    def detach(self) -> None:
        """Stop watching the process, and leave it running."""
        if self._handle is not None:
            self._handle.detach()

    def _write_pid_file(self, handle: ProcessHandle) -> None:
        path = self._spec.pid_file
        if path is None:
            return
        try:
            write_pid_file(path, ProcessIdentity(handle.pid, handle.start_time, boot_id()))
        except OSError as error:
            self._emit("pid_file_not_written", str(error))

    def _last_line(self) -> str:
        if self._spec.log_path is None:
            return ""
        lines = log_file.last_lines(self._spec.log_path, self._log_offset, 1)
        return lines[0][:_MAX_LAST_LINE_CHARS] if lines else ""
