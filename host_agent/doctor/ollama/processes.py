"""Find Ollama's processes in the output of `ps`: servers, runners, and other programs with a similar name.
Pure.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath

from host_agent.services.ollama import classify
from vestal.platform.processes.process_snapshot import ProcessSnapshot
from vestal.platform.processes.ps import PsProcess

# `ps` separates arguments by blanks, so a blank in the path of Ollama's program needs this pattern.
_PROGRAM = re.compile(rf"^(?:\S*/|/.*/)?(?:ollama|{'|'.join(classify.RUNNER_PROGRAMS)})(?= |$)")
_SIMILAR_NAME = re.compile(r"^\S*ollama[-_]\w+")


def servers(table: Mapping[int, PsProcess]) -> list[PsProcess]:
    """Return the processes of `ollama serve`, in whatever folder Ollama is installed."""
    return [process for process in table.values() if classify.is_server(as_snapshot(process))]


def orphan_runners(table: Mapping[int, PsProcess]) -> list[PsProcess]:
    """Return the runners whose server has ended. They still hold a model's memory (ollama issue 5642)."""
    return [table[runner.pid] for runner in classify.orphaned_runners(map(as_snapshot, table.values()))]


def lookalikes(table: Mapping[int, PsProcess]) -> list[PsProcess]:
    """Return processes with a name such as `ollama-mcp`, which are neither Ollama's server nor a runner."""
    return [
        process
        for process in table.values()
        if _SIMILAR_NAME.match(process.command) and not classify.is_runner(as_snapshot(process))
    ]


def as_snapshot(process: PsProcess) -> ProcessSnapshot:
    """Convert a process that `ps` lists to a ProcessSnapshot, with its command line split into program and
    arguments.
    """
    found = _PROGRAM.match(process.command)
    path = found[0] if found else process.command.partition(" ")[0]
    arguments = (path, *process.command[len(path) :].split())
    return ProcessSnapshot(process.pid, process.parent, PurePath(path).name, arguments)
