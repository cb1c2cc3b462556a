"""Processes of this machine, and which of them are ours."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

SERVERS = ("mlx_server.gateway", "mlx_server.engine", "mlx_server.model_store", "orchestrator")
PROC = Path("/proc")
SCRIPT, COMMANDS = "vestal", {"agent": "agent", "server": "mlx_server.gateway"}
AGENT = ("host_agent.cli.main", "agent")


def start_time(pid: int) -> float | None:
    """When the process started, in seconds since 1970; None where there is none (or only a zombie)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_suspended(pid: int) -> bool:
    """Whether it was stopped by SIGSTOP: it cannot act on SIGTERM before it goes on."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def command_line(pid: int) -> str:
    """The command line of a process, or its name, or nothing."""
    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


def our_module(pid: int, home: Path, default_home: Path) -> str | None:
    """Which server of ours the process is, for this home; None for any other process."""
    try:
        process = psutil.Process(pid)
        arguments, environment = process.cmdline(), process.environ()
    except psutil.Error:
        return None
    if _in_a_container(pid):
        return None
    if Path(environment.get("VESTAL_HOME") or default_home) != home:
        return None
    return server_of(arguments)


def server_of(arguments: Sequence[str]) -> str | None:
    """The server of ours that a command line runs: as a module, or by hand with the `vestal` script."""
    for at, word in enumerate(arguments[:2]):
        if Path(word).name == SCRIPT:
            return COMMANDS.get(next(iter(arguments[at + 1 :]), ""))
    if "-m" not in arguments[:-1]:
        return None
    module, *rest = arguments[arguments.index("-m") + 1 :]
    if (module, *rest[:1]) == AGENT:  # other commands of ours are no servers
        return "agent"
    return next((name for name in SERVERS if module == name or module.startswith(name + ".")), None)


def _in_a_container(pid: int) -> bool:
    """Whether it has PIDs of its own: on Linux a container's processes are the host's too, and the
    orchestrator's there knows no home."""
    try:
        return (PROC / str(pid) / "ns" / "pid").readlink() != (PROC / "self" / "ns" / "pid").readlink()
    except OSError:  # no such thing here, or no longer there
        return False


def of_ours(home: Path, default_home: Path) -> Iterator[tuple[int, str]]:
    """PID and module of every process that serves this home."""
    for pid in psutil.pids():
        module = our_module(pid, home, default_home)
        if module:
            yield pid, module
