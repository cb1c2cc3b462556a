"""The child spec: what to run and how to supervise it, with the caller's own launchers and probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vestal.supervision.errors import SpecError
from vestal.supervision.health.silence import ProcessActivity
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.restart_policy import HandoverPolicy, RestartPolicy
from vestal.supervision.lifecycle.states import ExitStatus, RestartType

Probe = Callable[[int], Awaitable[ProbeResult]]
"""Asks the child with this PID for its health. An exception, or no result in time, counts as a failed
probe.
"""

ReadActivity = Callable[[int], Awaitable[ProcessActivity]]
"""Returns what the kernel shows of the process with this PID."""


class ProcessHandle(Protocol):
    """The interface of a running process and its process group."""

    @property
    def pid(self) -> int:
        """Return the PID of the process, which is also the number of its group."""

    @property
    def start_time(self) -> float:
        """Return when the process started: in seconds since boot on Linux, and since 1970 elsewhere. Together
        with the PID, this identifies the process.
        """

    async def wait(self) -> ExitStatus:
        """Wait until the process has been reaped and its group is gone, and return its exit status."""

    def terminate(self) -> None:
        """Send SIGTERM to the process group."""

    def kill(self) -> None:
        """Send SIGKILL to the process group."""

    def detach(self) -> None:
        """Stop watching the process, and leave it running."""


class Launcher(Protocol):
    """Launches processes. A child spec without a launcher uses `vestal.supervision.spawn`.

    A launcher may also have a method `adopt(identity)` that returns its own kind of handle for a process that
    an earlier supervisor launched. Without it, such a process gets the default handle.
    """

    async def launch(self, spec: ChildSpec) -> ProcessHandle:
        """Launch the process of `spec` and return its handle. Raises LaunchError or OSError on failure."""


@dataclass(frozen=True)
class ChildSpec:
    """What to run, and how to supervise it.

    `env`               variables that are added to those of this process
    `log_path`          the file to which stdout and stderr are appended; None: those of this process
    `pid_file`          a file for the process's identity, by which the next supervisor finds the process
    `find`              takes `pid_file` and PIDs to ignore, and returns the PID of the process that an
                        earlier supervisor launched, or None; called if `pid_file` names no running process
                        (it was deleted, or the disk was full)
    `adopt`             whether a process that was found is adopted; if not, it is terminated before the first
                        start
    `ready`             the probe that ends a start; None: the child is ready when it runs
    `health`            the probe of a child that is up; None: only the end of its process is noticed
    `activity`          reads what the kernel shows of the process, so that a child that works is not taken
                        for hung; None: nothing is known of it
    `productive`        called with the PID of a process that has ended: returns whether it served any
                        request. If so, its restart counts at most `policy.productive_weight` for the limit
                        on restarts (`policy.intensity`); any other restart counts 1. None: no process counts
                        as productive
    `restart`           when a child that ended is restarted
    `fatal_exit_codes`  exit codes after which a restart is useless (78 is EX_CONFIG: a mistake in the
                        configuration)
    `pass_fds`          descriptors that stay open in the process, under the same numbers
    `handover`          how long a handover to a successor may take; None: the program cannot hand over
    `before_launch`     awaited before every launch; a LaunchError from it counts as a failed start
    `launcher`          launches the process; None: `vestal.supervision.spawn` runs `command`
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log_path: Path | None = None
    pid_file: Path | None = None
    find: Callable[[Path, Container[int]], int | None] | None = None
    ready: Probe | None = None
    health: Probe | None = None
    activity: ReadActivity | None = None
    productive: Callable[[int], bool] | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    restart: RestartType = RestartType.PERMANENT
    adopt: bool = True
    fatal_exit_codes: frozenset[int] = frozenset({78})
    pass_fds: tuple[int, ...] = ()
    handover: HandoverPolicy | None = None
    launcher: Launcher | None = None
    before_launch: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SpecError("a child spec has no name; give it one")
        if not self.command and self.launcher is None:
            raise SpecError(f"child {self.name} has no command; give it one, or a launcher", name=self.name)
