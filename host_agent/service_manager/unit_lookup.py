"""What the service managers know of a process or a unit: launchd's jobs, systemd's units. Only read.

What they print is parsed by functions of its own, which need no such manager to be tried.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from host_agent.service_manager import launchctl_answers
from vestal.platform.commands import CommandResult, run_async
from vestal.platform.macos.brew import PLACES

COLUMNS = 3  # PID, last exit status, label


@dataclass(frozen=True)
class Job:
    """A launchd job or a systemd unit. `pid` is None where it is known and does not run. `system`: root's."""

    name: str
    pid: int | None = None
    system: bool = False


def parse_launchctl_list(output: str) -> tuple[Job, ...]:
    """`launchctl list`: PID or `-`, last exit status, label; a tab between them."""
    jobs = []
    for line in output.splitlines():
        fields = line.split("\t")
        if len(fields) == COLUMNS and fields[2] != "Label":
            jobs.append(Job(fields[2], int(fields[0]) if fields[0].isdigit() else None))
    return tuple(jobs)


def parse_launchctl_print(label: str, done: CommandResult) -> Job | None:
    """`launchctl print system/LABEL`; None where there is no such job."""
    told = launchctl_answers.parse(done.exit_code, done.text)
    return Job(label, told.pid, system=True) if told.loaded else None


def parse_systemctl_show(unit: str, output: str, system: bool) -> Job | None:
    """`systemctl show UNIT --property=LoadState,UnitFileState,MainPID`; None where there is no such unit."""
    told = dict(line.partition("=")[::2] for line in output.splitlines())
    if told.get("LoadState") != "loaded":
        return None
    pid = told.get("MainPID", "0")
    running = int(pid) if pid.isdigit() and pid != "0" else None
    if running is None and told.get("UnitFileState") not in ("enabled", "enabled-runtime"):
        return None  # it is there, and nobody wants it to run
    return Job(unit, running, system)


def parse_cgroup(text: str) -> Job | None:
    """The unit in /proc/PID/cgroup: `0::/system.slice/ollama.service`, or below `user@1000.service`."""
    for line in text.splitlines():
        parts = line.rpartition(":")[2].split("/")
        units = [part for part in parts if part.endswith(".service")]
        own = [unit for unit in units if not unit.startswith("user@")]
        if own:
            return Job(own[-1], system=len(own) == len(units))
    return None


def unit_of(pid: int) -> Job | None:
    """The systemd unit that a process runs in (Linux)."""
    with contextlib.suppress(OSError):
        return parse_cgroup(Path(f"/proc/{pid}/cgroup").read_text())
    return None


async def launchd_jobs() -> tuple[Job, ...]:
    """The jobs of this user's launchd; none on other systems."""
    if sys.platform != "darwin":
        return ()
    return parse_launchctl_list(await _told("launchctl", "list"))


async def launchd_system_job(label: str) -> Job | None:
    """A job of the system's launchd, which anybody may look at."""
    if sys.platform != "darwin":
        return None
    return parse_launchctl_print(label, await run_async("launchctl", "print", f"system/{label}"))


async def systemd_unit(unit: str, system: bool) -> Job | None:
    """A unit of this user's systemd, or of the system's; None where there is neither."""
    if not _has_systemd():
        return None
    scope = ("--system",) if system else ("--user",)
    asked = ("show", unit, "--property=LoadState,UnitFileState,MainPID")
    return parse_systemctl_show(unit, await _told("systemctl", *scope, *asked), system)


def _has_systemd() -> bool:
    return sys.platform == "linux" and Path("/run/systemd/system").is_dir()


async def _told(*command: str) -> str:
    """Nothing where the command is missing, fails, or takes too long."""
    done = await run_async(*command)
    return done.text if done.exit_code == 0 else ""


def brew() -> str:
    """The full path of `brew`, also where PATH is bare; the bare name where it is in no usual place."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    return shutil.which("brew", path=places) or "brew"
