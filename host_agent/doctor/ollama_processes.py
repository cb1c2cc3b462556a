"""Which processes are Ollama's: its servers, its runners, and what only has its name. Pure."""

import re
from collections.abc import Mapping

from host_agent.host.ps import Process

_SERVER = re.compile(r"^(?:\S*/|/.*/)?ollama serve\b")
_RUNNER = re.compile(r"^(?:\S*/|/.*/)?(?:ollama runner\b|ollama_llama_server\b)")
_NAMED = re.compile(r"^\S*ollama[-_]\w+")


def servers(table: Mapping[int, Process]) -> list[Process]:
    """`ollama serve`, wherever it is installed."""
    return [process for process in table.values() if _SERVER.match(process.command)]


def orphan_runners(table: Mapping[int, Process]) -> list[Process]:
    """Runners whose server is gone: they hold a model's memory and serve nobody (ollama 5642)."""
    owners = {process.pid for process in servers(table)}
    runners = [process for process in table.values() if _RUNNER.match(process.command)]
    # A runner may have been started by a helper of the server's: what counts is that some server is above it.
    return [process for process in runners if not _has_above(process, owners, table)]


def lookalikes(table: Mapping[int, Process]) -> list[Process]:
    """`ollama-mcp` and its like: not the server."""
    of_it = {process.pid for process in servers(table)}
    return [
        process
        for process in table.values()
        if process.pid not in of_it and _NAMED.match(process.command) and not _RUNNER.match(process.command)
    ]


def _has_above(process: Process, owners: set[int], table: Mapping[int, Process]) -> bool:
    seen: set[int] = set()
    while process.pid not in seen:
        seen.add(process.pid)
        if process.parent in owners:
            return True
        if process.parent not in table:
            return False
        process = table[process.parent]
    return False
