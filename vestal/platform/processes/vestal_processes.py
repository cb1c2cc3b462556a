"""Find the processes of this machine that are Vestal's servers, for one VESTAL_HOME."""

import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import psutil

SERVERS = (
    "host_agent.watchdog",
    "mlx_server.gateway",
    "mlx_server.engine",
    "mlx_server.model_store",
    "orchestrator",
)
PROC = Path("/proc")
SCRIPT = "vestal"
SCRIPT_COMMANDS = {"agent": "agent", "server": "mlx_server.gateway"}
AGENT_MODULE = ("host_agent.cli.main", "agent")


def server_module(pid: int, home: Path, default_home: Path) -> str | None:
    """Return which of Vestal's servers the process runs, by name (`mlx_server.gateway`, `agent`, …).

    None for any other process, for a server of another home than `home`, and for one inside a container. A
    process without VESTAL_HOME in its environment belongs to `default_home`.
    """
    try:
        process = psutil.Process(pid)
        arguments, environment = process.cmdline(), process.environ()
    except psutil.Error:
        return None
    if _in_container(pid):
        return None
    if Path(os.path.normpath(environment.get("VESTAL_HOME") or default_home)) != home:
        return None
    return server_module_of_command(arguments)


def server_module_of_command(arguments: Sequence[str]) -> str | None:
    """Return the name of the Vestal server that a command line runs (`mlx_server.gateway`, `agent`, …).

    The command line is `python -m MODULE …` or `vestal COMMAND …`. Return None if it runs no server.
    """
    for at, word in enumerate(arguments[:2]):
        if Path(word).name == SCRIPT:
            return SCRIPT_COMMANDS.get(next(iter(arguments[at + 1 :]), ""))
    if "-m" not in arguments[:-1]:
        return None
    module, *rest = arguments[arguments.index("-m") + 1 :]
    if (module, *rest[:1]) == AGENT_MODULE:  # every other command of this module ends by itself
        return "agent"
    return next((name for name in SERVERS if module == name or module.startswith(name + ".")), None)


def servers_of_home(home: Path, default_home: Path) -> Iterator[tuple[int, str]]:
    """Yield the PID and the name (`mlx_server.gateway`, `agent`, …) of every running Vestal server whose home
    is `home`. The home of a process without VESTAL_HOME in its environment is `default_home`.
    """
    for pid in psutil.pids():
        module = server_module(pid, home, default_home)
        if module:
            yield pid, module


def group_leader(variable: str, value: str, excluded: Container[int] = ()) -> int | None:
    """Return the PID of the process that leads a process group and has this variable, with this value, in its
    environment.

    Its descendants inherit the variable, but do not lead a process group; a descendant that is itself
    supervised leads a group, and has another value. PIDs in `excluded` are ignored. If several processes
    match, return the one that has run longest; if none matches, return None.
    """
    found = []
    for process in psutil.process_iter():
        try:
            leads = os.getpgid(process.pid) == process.pid
            if (
                leads
                and process.pid not in excluded
                and process.environ().get(variable) == value
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append((process.create_time(), process.pid))
        except (psutil.Error, OSError):
            continue
    return min(found)[1] if found else None


def _in_container(pid: int) -> bool:
    """Return whether the process has another PID namespace than this process, as in a container.

    On Linux, the host also sees the processes of containers. An orchestrator in a container has no
    VESTAL_HOME, so it would be taken for a server of the default home.
    """
    try:
        return (PROC / str(pid) / "ns" / "pid").readlink() != (PROC / "self" / "ns" / "pid").readlink()
    except OSError:  # this system has no namespaces, or the process has ended
        return False
