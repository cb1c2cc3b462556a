"""Find the launchd job or systemd unit of another program, such as Ollama. Nothing is changed.

The `parse_` functions are pure: they turn the output of a command into a Job.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from host_agent.service_manager import launchctl_output
from vestal.platform.commands import CommandResult, run_async
from vestal.platform.macos.brew import PLACES

LAUNCHCTL_LIST_COLUMNS = 3  # PID, last exit status, label


@dataclass(frozen=True)
class Job:
    """A launchd job or a systemd unit.

    `pid` is None if the job does not run. `system` is True if the job belongs to the machine, not to this
    user.
    """

    name: str
    pid: int | None = None
    system: bool = False


def parse_launchctl_list(output: str) -> tuple[Job, ...]:
    """Return the jobs in the output of `launchctl list`: PID or `-`, exit status and label, tab-separated."""
    jobs = []
    for line in output.splitlines():
        fields = line.split("\t")
        if len(fields) == LAUNCHCTL_LIST_COLUMNS and fields[2] != "Label":
            jobs.append(Job(fields[2], int(fields[0]) if fields[0].isdigit() else None))
    return tuple(jobs)


def parse_launchctl_print(label: str, result: CommandResult) -> Job | None:
    """Return the job in the result of `launchctl print system/LABEL`, or None if there is no such job."""
    state = launchctl_output.parse_print(result.exit_code, result.text)
    return Job(label, state.pid, system=True) if state.loaded else None


def parse_systemctl_show(unit: str, output: str, system: bool) -> Job | None:
    """Return the unit in the output of `systemctl show UNIT --property=LoadState,UnitFileState,MainPID`.
    `system` says whether the output is from the machine's systemd, not from the user's, and is stored in the
    returned Job.

    Return None if there is no such unit, or if it neither runs nor is enabled.
    """
    properties = dict(line.partition("=")[::2] for line in output.splitlines())
    if properties.get("LoadState") != "loaded":
        return None
    pid = properties.get("MainPID", "0")
    running = int(pid) if pid.isdigit() and pid != "0" else None
    if running is None and properties.get("UnitFileState") not in ("enabled", "enabled-runtime"):
        return None
    return Job(unit, running, system)


def parse_cgroup(text: str) -> Job | None:
    """Return the unit that the text of /proc/PID/cgroup names, such as `0::/system.slice/ollama.service`;
    None if it names no service.

    A unit below `user@1000.service` belongs to that user, and any other unit to the machine.
    """
    for line in text.splitlines():
        parts = line.rpartition(":")[2].split("/")
        units = [part for part in parts if part.endswith(".service")]
        own = [unit for unit in units if not unit.startswith("user@")]
        if own:
            return Job(own[-1], system=len(own) == len(units))
    return None


def unit_of(pid: int) -> Job | None:
    """Return the systemd unit that a process runs in; None if there is none, as on macOS."""
    with contextlib.suppress(OSError):
        return parse_cgroup(Path(f"/proc/{pid}/cgroup").read_text())
    return None


async def launchd_jobs() -> tuple[Job, ...]:
    """Return the jobs of this user's launchd; none on other systems."""
    if sys.platform != "darwin":
        return ()
    return parse_launchctl_list(await _output("launchctl", "list"))


async def launchd_system_job(label: str) -> Job | None:
    """Return the job `label` of the machine's launchd (its domain `system`), which can be read without
    privileges. Return None if there is no such job, if launchctl fails, or if this is not macOS.
    """
    if sys.platform != "darwin":
        return None
    return parse_launchctl_print(label, await run_async("launchctl", "print", f"system/{label}"))


async def systemd_unit(unit: str, system: bool) -> Job | None:
    """Return a unit of this user's systemd or, with `system`, of the machine's; None if there is none."""
    if not _has_systemd():
        return None
    scope = ("--system",) if system else ("--user",)
    query = ("show", unit, "--property=LoadState,UnitFileState,MainPID")
    return parse_systemctl_show(unit, await _output("systemctl", *scope, *query), system)


def _has_systemd() -> bool:
    return sys.platform == "linux" and Path("/run/systemd/system").is_dir()


async def _output(*command: str) -> str:
    """Return what the command prints; an empty string if it is missing, fails, or takes too long."""
    result = await run_async(*command)
    return result.text if result.exit_code == 0 else ""


def brew() -> str:
    """Return the full path of `brew`, also if PATH lacks its folder; `brew` if it is not found."""
    folders = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    return shutil.which("brew", path=folders) or "brew"
