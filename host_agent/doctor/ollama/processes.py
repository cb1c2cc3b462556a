"""Which processes of `ps` are Ollama's: its servers, its runners, and what only has its name. Pure."""

import re
from collections.abc import Mapping
from pathlib import PurePath

from host_agent.services.ollama import classify
from vestal.platform.processes.process_snapshot import ProcessSnapshot
from vestal.platform.processes.ps import PsProcess

# `ps` has one blank between all words: those in the path of a program of Ollama's are its own.
_PROGRAM = re.compile(rf"^(?:\S*/|/.*/)?(?:ollama|{'|'.join(classify.RUNNER_PROGRAMS)})(?= |$)")
_NAMED = re.compile(r"^\S*ollama[-_]\w+")


def servers(table: Mapping[int, PsProcess]) -> list[PsProcess]:
    """`ollama serve`, wherever it is installed."""
    return [process for process in table.values() if classify.is_server(seen(process))]


def orphan_runners(table: Mapping[int, PsProcess]) -> list[PsProcess]:
    """Runners whose server is gone: they hold a model's memory and serve nobody (ollama 5642)."""
    return [table[runner.pid] for runner in classify.orphans(map(seen, table.values()))]


def lookalikes(table: Mapping[int, PsProcess]) -> list[PsProcess]:
    """`ollama-mcp` and its like: not the server."""
    return [
        process
        for process in table.values()
        if _NAMED.match(process.command) and not classify.is_runner(seen(process))
    ]


def seen(process: PsProcess) -> ProcessSnapshot:
    """As the process table of this machine's own processes would tell it."""
    found = _PROGRAM.match(process.command)
    path = found[0] if found else process.command.partition(" ")[0]
    arguments = (path, *process.command[len(path) :].split())
    return ProcessSnapshot(process.pid, process.parent, PurePath(path).name, arguments)
