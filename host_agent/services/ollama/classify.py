"""Classify processes: Ollama's server, one of its runners, its menu-bar app, or neither. Pure.

Neither a process named `ollama-mcp` nor `ollama run` (a client) is one of these.
"""

from collections.abc import Iterable
from pathlib import PurePath

from vestal.platform.processes.process_snapshot import ProcessSnapshot

SERVER_COMMANDS = ("serve", "start")
RUNNER_PROGRAMS = ("llama-server", "ollama_llama_server")  # newer and older releases than `ollama runner`
INIT = ("init", "systemd", "launchd")


def is_server(process: ProcessSnapshot) -> bool:
    """Return whether the process is `ollama serve`, by the same test as Ollama's own menu-bar app."""
    return process.program == "ollama" and process.command in SERVER_COMMANDS


def is_runner(process: ProcessSnapshot) -> bool:
    """Return whether the process holds a model for Ollama.

    A runner is `ollama runner --model …`, or a llama-server that runs from Ollama's folder or on one of its
    blobs.
    """
    if process.program == "ollama":
        return process.command == "runner"
    if process.program not in RUNNER_PROGRAMS:
        return False
    folders = PurePath(process.words[0]).parts if process.words else ()
    is_in_ollamas_folder = any(part.lower() in ("ollama", "ollama.app") for part in folders)
    return is_in_ollamas_folder or any("/blobs/sha256-" in word for word in process.words)


def is_menu_bar_app(process: ProcessSnapshot) -> bool:
    """Return whether the process is Ollama.app, which runs a server of its own and restarts it."""
    return "Ollama.app/Contents/MacOS/" in (process.exe or " ".join(process.arguments[:1]))


def orphaned_runners(processes: Iterable[ProcessSnapshot]) -> tuple[ProcessSnapshot, ...]:
    """Return the runners whose server has ended. They get no more requests, and still hold their model's
    memory.

    `processes` must contain the runners' parents, as far as these still run.
    """
    processes = tuple(processes)
    by_pid = {process.pid: process for process in processes}
    return tuple(p for p in processes if is_runner(p) and _is_orphan(p, by_pid.get(p.ppid)))


def _is_orphan(runner: ProcessSnapshot, parent: ProcessSnapshot | None) -> bool:
    """Return whether the runner's parent is init, which adopts every process whose parent has ended.

    `parent` is the process with the PID `runner.ppid`, None if it was not found. The runner is then an orphan
    only if that PID is at most 1, as init's is.
    """
    return runner.ppid <= 1 or (parent is not None and parent.name in INIT)
