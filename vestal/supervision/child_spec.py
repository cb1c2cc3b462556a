"""The child spec, and the seams through which a child reaches the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vestal.supervision.errors import SpecError
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.restart_policy import RestartPolicy
from vestal.supervision.lifecycle.states import ExitStatus, RestartType

Probe = Callable[[int], Awaitable[ProbeResult]]
"""Asked with the child's PID. Raising, or no answer in time, is a failure."""


class ProcessHandle(Protocol):
    """One running process and its whole group."""

    @property
    def pid(self) -> int: ...

    @property
    def start_time(self) -> float:
        """With the PID, the process's identity (see `identity.start_time`)."""

    async def wait(self) -> ExitStatus:
        """Returns once the process is reaped and its group is gone."""

    def terminate(self) -> None:
        """SIGTERM to the group."""

    def kill(self) -> None:
        """SIGKILL to the group."""

    def detach(self) -> None:
        """Lets go of it without ending it."""


class Launcher(Protocol):
    """Makes processes. The default is `supervision.spawn`.

    One whose handles are of its own kind also has `adopt(identity)`, for a process that an earlier supervisor
    left running; without it such a one gets the default handle.
    """

    async def launch(self, spec: ChildSpec) -> ProcessHandle:
        """Raises LaunchError (or OSError) where no process came of it."""


@dataclass(frozen=True)
class ChildSpec:
    """What to run and how to look after it.

    `env` is laid over this process's environment. `log_path` gets stdout and stderr, appended (None: they
    stay this process's). `pid_file` holds `{pid, start_time, boot}`; with `adopt`, a process found by it is
    taken over, without it such a one is ended before the first start. `ready` judges a start (None: running
    is ready), `health` watches what is up (None: only its exit is watched). An exit code in
    `fatal_exit_codes` is a mistake that no restart mends (78: EX_CONFIG).
    `before_launch` is awaited before each process is made; where it raises LaunchError, none is, which counts
    as a failed start (the machine's memory is looked at so before each relaunch, R6.3).
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log_path: Path | None = None
    pid_file: Path | None = None
    ready: Probe | None = None
    health: Probe | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    restart: RestartType = RestartType.PERMANENT
    adopt: bool = True
    fatal_exit_codes: frozenset[int] = frozenset({78})
    launcher: Launcher | None = None
    before_launch: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SpecError("a child spec has no name; give it one")
        if not self.command and self.launcher is None:
            raise SpecError(f"child {self.name} has no command; give it one, or a launcher", name=self.name)
