"""Which process is Ollama's: its server, a runner of its, or neither. Pure.

A process named `ollama-mcp` is not it, nor is `ollama run` (a client).
"""

from collections.abc import Iterable
from pathlib import PurePath

from vestal.platform.processes.process_snapshot import ProcessSnapshot

SERVES = ("serve", "start")
RUNNER_PROGRAMS = ("llama-server", "ollama_llama_server")  # newer and older releases than `ollama runner`
INIT = ("init", "systemd", "launchd")


def is_server(process: ProcessSnapshot) -> bool:
    """`ollama serve`, as Ollama's own menu-bar app tells it."""
    return process.program == "ollama" and process.command in SERVES


def is_runner(process: ProcessSnapshot) -> bool:
    """The process that holds a model: `ollama runner --model …`, or a llama-server of Ollama's (which runs
    from Ollama's own folder, or on one of its blobs)."""
    if process.program == "ollama":
        return process.command == "runner"
    if process.program not in RUNNER_PROGRAMS:
        return False
    folders = PurePath(process.words[0]).parts if process.words else ()
    ollamas = any(part.lower() in ("ollama", "ollama.app") for part in folders)
    return ollamas or any("/blobs/sha256-" in word for word in process.words)


def is_menu_bar_app(process: ProcessSnapshot) -> bool:
    """Ollama.app, which keeps a server of its own and brings it back."""
    return "Ollama.app/Contents/MacOS/" in (process.exe or " ".join(process.arguments[:1]))


def orphans(processes: Iterable[ProcessSnapshot]) -> tuple[ProcessSnapshot, ...]:
    """The runners whose server is gone: nobody asks them again, and they hold their model's memory."""
    processes = tuple(processes)
    known = {process.pid: process for process in processes}
    return tuple(p for p in processes if is_runner(p) and _is_left_behind(p, known.get(p.ppid)))


def _is_left_behind(runner: ProcessSnapshot, parent: ProcessSnapshot | None) -> bool:
    """`parent` is None where it was not looked up: it is no Ollama. Only init takes in orphans."""
    return runner.ppid <= 1 or (parent is not None and parent.name in INIT)
