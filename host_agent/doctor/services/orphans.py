"""Diagnose processes that nothing supervises: orphaned servers, zombies, and Ollama's runners without a
server.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.doctor.evidence import process_table
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.ollama import processes
from vestal.config import Config
from vestal.platform.processes import vestal_processes
from vestal.platform.processes.ps import PsProcess

NAME = "orphans"
INIT_PID = 1
ZOMBIE_GRACE_S = 0.5
ALWAYS_HAVE_A_PARENT = ("mlx_server.engine", "mlx_server.model_store")
ADOPT_ORPHANS = ("launchd", "systemd", "init")


@dataclass(frozen=True)
class HomeProcesses:
    """The running servers of one Vestal home folder. `modules` maps each server's PID to the name of the
    Python module that the server runs, such as `mlx_server.gateway`; for the host agent, the name is `agent`.

    `recorded_pids` are the PIDs in the home's PID files: those of the processes that the agent started or
    adopted. The agent supervises these processes only while it runs itself (`agent_is_alive`).
    """

    modules: Mapping[int, str]
    recorded_pids: Set[int] = frozenset()
    agent_is_alive: bool = False


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a finding for each orphaned server, each zombie, and each Ollama runner without a server, or one
    finding `ok` if there is none.

    The remedy for a server or a runner is `kill`, never `kill -9`, which can leak wired memory on a Mac.
    """
    home = config.home
    table = process_table.read()
    ours = HomeProcesses(
        dict(vestal_processes.servers_of_home(home.root, home.default_root)),
        _recorded_pids(home.run),
        single_instance.running(home) is not None,
    )
    runners = processes.orphan_runners(table) if config.ollama.manage != "off" else []
    found = [
        *(_assess_orphan(process, ours) for process in orphans(table, ours)),
        *(_assess_zombie(process, ours) for process in _still_zombies(zombies(table, ours))),
        *(_assess_runner(process) for process in runners),
    ]
    yield from found or [Finding(NAME, "ok", "No process of Vestal's has lost its parent.")]


def orphans(table: Mapping[int, PsProcess], ours: HomeProcesses) -> list[PsProcess]:
    """Return the servers in `ours` that nothing supervises, because their parent has ended and no living
    agent has adopted them.
    """
    return [
        table[pid]
        for pid, module in ours.modules.items()
        if pid in table
        and module != "agent"
        and not table[pid].is_zombie
        and not (ours.agent_is_alive and pid in ours.recorded_pids)
        and has_lost_its_parent(table[pid], table, ours)
    ]


def has_lost_its_parent(process: PsProcess, table: Mapping[int, PsProcess], ours: HomeProcesses) -> bool:
    """Return whether the parent that started `process` has ended. The system then makes another process its
    parent: PID 1, or one of the programs ADOPT_ORPHANS.

    `table` has all processes of the machine by PID. If the parent's PID is not in `table`, the parent has
    ended. If the parent is one of the servers `ours`, the parent has not ended, even if its PID is 1.
    """
    if process.parent in ours.modules:
        return False
    parent = table.get(process.parent)
    return parent is None or parent.pid == INIT_PID or _adopts_orphans(parent)


def zombies(table: Mapping[int, PsProcess], ours: HomeProcesses) -> list[PsProcess]:
    """Return the ended children of this home's processes whose exit code the parent has not read."""
    return [process for process in table.values() if process.is_zombie and process.parent in ours.modules]


def _adopts_orphans(process: PsProcess) -> bool:
    program = process.command.split(" ")[0].rpartition("/")[2]
    return program in ADOPT_ORPHANS


def _recorded_pids(folder: Path) -> frozenset[int]:
    """Return the PIDs in the PID files in `folder`."""
    found = set()
    for path in folder.glob("*.json"):
        try:
            found.add(int(json.loads(path.read_text())["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return frozenset(found)


def _still_zombies(found: list[PsProcess]) -> list[PsProcess]:
    """Wait ZOMBIE_GRACE_S, and return the processes that are still zombies.

    Every child that ends is a zombie for a short time, which is no fault.
    """
    if not found:
        return []
    time.sleep(ZOMBIE_GRACE_S)
    now = process_table.read()
    return [process for process in found if process.pid in now and now[process.pid].is_zombie]


def _assess_orphan(process: PsProcess, ours: HomeProcesses) -> Finding:
    module = ours.modules[process.pid]
    if process.pid not in ours.recorded_pids and not module.startswith(ALWAYS_HAVE_A_PARENT):
        sentence = f"{module} (PID {process.pid}) runs alone, without an agent."
        return Finding(NAME, "note", sentence, "Nothing restarts it; after `vestal up` the agent would.")
    sentence = f"{module} (PID {process.pid}) runs without the parent that supervised it."
    remedy = f"`kill {process.pid}`, or `vestal up`, which adopts what it can."
    evidence = f"its parent is PID {process.parent}, no agent lists it; it has run for {_age(process)}"
    return Finding(NAME, "fault", sentence, remedy, evidence)


def _assess_zombie(process: PsProcess, ours: HomeProcesses) -> Finding:
    """Return a note on a zombie, which is an ended process whose exit code its parent has not read. It is no
    fault, because a zombie holds no memory and no port.
    """
    parent = f"{ours.modules[process.parent]} (PID {process.parent})"
    sentence = f"PID {process.pid} is a zombie: {parent} has not read its exit code."
    return Finding(NAME, "note", sentence, "If it stays, run `vestal recover --once`.", process.command)


def _assess_runner(process: PsProcess) -> Finding:
    sentence = f"A runner of Ollama (PID {process.pid}) has outlived its server and holds its model's memory."
    sudo = "" if process.uid == os.getuid() else "sudo "
    return Finding(NAME, "fault", sentence, f"`{sudo}kill {process.pid}`", process.command[:200])


def _age(process: PsProcess) -> str:
    hours, minutes = process.age_s // 3600, process.age_s // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{process.age_s} s"


DIAGNOSIS = Diagnosis(NAME, diagnose)
