"""The process behind a child: found again or made, its PID file and its log."""

from __future__ import annotations

from collections.abc import Callable

from vestal.supervision.child_spec import ChildSpec, ProcessHandle
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import log_file
from vestal.supervision.processes.identity import (
    ProcessIdentity,
    age_s,
    boot_id,
    read_pid_file,
    remove_pid_file,
    write_pid_file,
)
from vestal.supervision.processes.process_group import DefaultLauncher, adopt, kill_orphaned_group

_LAST_WORDS_CHARS = 500


class ChildProcess:
    """Holds the handle of the one process a child has. `tell` takes (event, cause) of lesser mishaps."""

    def __init__(self, spec: ChildSpec, tell: Callable[[str, str], object]) -> None:
        self._spec = spec
        self._tell = tell
        self._launcher = spec.launcher or DefaultLauncher()
        self._handle: ProcessHandle | None = None
        self._log_from = 0

    def find(self) -> tuple[int, float] | None:
        """Takes over the process that the PID file names: its PID and age in seconds. None: there is none.

        What is left of the group of a process that has gone is killed.
        """
        path = self._spec.pid_file
        identity = None if path is None else read_pid_file(path)
        if path is None or identity is None:
            return None
        if identity.alive():
            take_over = getattr(self._launcher, "adopt", adopt)
            self._handle = take_over(identity)
            self._log_from = 0
            return identity.pid, age_s(identity)
        if kill_orphaned_group(identity):
            self._tell("leftovers_killed", f"PID {identity.pid}, which led their group, is gone")
        path.unlink(missing_ok=True)
        return None

    async def launch(self) -> int:
        """Makes the process; returns its PID. Raises what the launcher raises."""
        if self._spec.log_path is not None:
            self._log_from = log_file.turn_over(self._spec.log_path)
        self._handle = handle = await self._launcher.launch(self._spec)
        self._write_pid_file(handle)
        return handle.pid

    async def wait(self) -> tuple[ExitStatus, str]:
        """How it ended, and its last words."""
        handle = self._handle
        assert handle is not None
        status = await handle.wait()
        self._handle = None
        if self._spec.pid_file is not None:
            remove_pid_file(self._spec.pid_file, handle.pid)
        return status, self._last_words()

    def terminate(self) -> None:
        if self._handle is not None:
            self._handle.terminate()

    def kill(self) -> None:
        if self._handle is not None:
            self._handle.kill()

    def detach(self) -> None:
        if self._handle is not None:
            self._handle.detach()

    def _write_pid_file(self, handle: ProcessHandle) -> None:
        path = self._spec.pid_file
        if path is None:
            return
        try:
            write_pid_file(path, ProcessIdentity(handle.pid, handle.start_time, boot_id()))
        except OSError as error:
            self._tell("pid_file_not_written", str(error))

    def _last_words(self) -> str:
        if self._spec.log_path is None:
            return ""
        lines = log_file.last_lines(self._spec.log_path, self._log_from, 1)
        return lines[0][:_LAST_WORDS_CHARS] if lines else ""
