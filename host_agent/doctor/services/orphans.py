"""Processes of ours that nobody looks after, zombies, and Ollama's runners without their server."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.doctor.evidence import process_table
from host_agent.doctor.finding import Finding
from host_agent.doctor.ollama import processes
from vestal.config import Config
from vestal.platform.processes import vestal_processes
from vestal.platform.processes.ps import PsProcess

NAME = "orphans"
INIT = 1
A_MOMENT_S = 0.5
NEVER_ALONE = ("mlx_server.engine", "mlx_server.model_store")
REAPERS = ("launchd", "systemd", "init")


@dataclass(frozen=True)
class Ours:
    """Processes of this home by PID; those that an agent started or adopted (its PID files say so); and
    whether it still lives."""

    modules: Mapping[int, str]
    recorded: Set[int] = frozenset()
    agent_lives: bool = False


def look(config: Config) -> Iterator[Finding]:
    """The remedy is `kill`, which ends gracefully: `kill -9` strands wired memory on a Mac."""
    home = config.home
    table = process_table.read()
    agent_lives = single_instance.running(home) is not None
    ours = Ours(
        dict(vestal_processes.servers_of_home(home.root, home.default_root)), _recorded(home.run), agent_lives
    )
    runners = processes.orphan_runners(table) if config.ollama.manage != "off" else []
    found = [
        *(_orphan(process, ours) for process in orphans(table, ours)),
        *(_zombie(process, ours) for process in _lasting(zombies(table, ours))),
        *(_runner(process) for process in runners),
    ]
    yield from found or [Finding(NAME, "ok", "no process of ours has lost its parent")]


def orphans(table: Mapping[int, PsProcess], ours: Ours) -> list[PsProcess]:
    """Servers of ours that nobody would stop. An adopted one has another parent, and is well."""
    return [
        table[pid]
        for pid, module in ours.modules.items()
        if pid in table
        and module != "agent"
        and not table[pid].is_zombie
        and not (ours.agent_lives and pid in ours.recorded)
        and is_abandoned(table[pid], table, ours)
    ]


def is_abandoned(process: PsProcess, table: Mapping[int, PsProcess], ours: Ours) -> bool:
    """Whether its parent has gone: it has fallen to the system's own first process."""
    if process.parent in ours.modules:
        return False
    parent = table.get(process.parent)
    return parent is None or parent.pid == INIT or _is_reaper(parent)


def zombies(table: Mapping[int, PsProcess], ours: Ours) -> list[PsProcess]:
    """Dead children that a process of ours has not taken leave of."""
    return [process for process in table.values() if process.is_zombie and process.parent in ours.modules]


def _is_reaper(process: PsProcess) -> bool:
    program = process.command.split(" ")[0].rpartition("/")[2]
    return program in REAPERS


def _recorded(folder: Path) -> frozenset[int]:
    """PIDs in the files of the agent's and the gateway's supervisors."""
    found = set()
    for path in folder.glob("*.json"):
        try:
            found.add(int(json.loads(path.read_text())["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return frozenset(found)


def _orphan(process: PsProcess, ours: Ours) -> Finding:
    module = ours.modules[process.pid]
    if process.pid not in ours.recorded and not module.startswith(NEVER_ALONE):
        sentence = f"{module} (PID {process.pid}) runs alone, without an agent"
        return Finding(NAME, "note", sentence, "nobody restarts it; `vestal up` would")
    sentence = f"{module} (PID {process.pid}) runs on without the parent that looked after it"
    remedy = f"`kill {process.pid}`, or `vestal up`, which takes over what it can"
    evidence = f"its parent is PID {process.parent}, no agent lists it; it has run for {_age(process)}"
    return Finding(NAME, "fault", sentence, remedy, evidence)


def _lasting(found: list[PsProcess]) -> list[PsProcess]:
    """Those that are zombies still: for a moment, every child that ends is one."""
    if not found:
        return []
    time.sleep(A_MOMENT_S)
    now = process_table.read()
    return [process for process in found if process.pid in now and now[process.pid].is_zombie]


def _zombie(process: PsProcess, ours: Ours) -> Finding:
    parent = ours.modules[process.parent]
    sentence = f"PID {process.pid} is a zombie: {parent} (PID {process.parent}) has not noted its end"
    # It holds no memory and no port.
    return Finding(NAME, "note", sentence, "if it stays, `vestal recover --once`", process.command)


def _runner(process: PsProcess) -> Finding:
    sentence = (
        f"a runner of Ollama's (PID {process.pid}) has outlived its server and holds its model's memory"
    )
    sudo = "" if process.uid == os.getuid() else "sudo "
    return Finding(NAME, "fault", sentence, f"`{sudo}kill {process.pid}`", process.command[:200])


def _age(process: PsProcess) -> str:
    hours, minutes = process.age_s // 3600, process.age_s // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{process.age_s} s"
