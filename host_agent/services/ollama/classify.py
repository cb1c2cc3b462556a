"""Classify processes: Ollama's server, one of its runners, its menu-bar app, or neither. Pure.

Neither a process named `ollama-mcp` nor `ollama run` (a client) is one of these.
"""

from collections.abc import Container, Iterable
from itertools import pairwise
from pathlib import PurePath

from vestal.platform.processes.process_snapshot import ProcessSnapshot

SERVER_COMMANDS = ("serve", "start")
LLAMA_SERVER = "llama-server"  # of llama.cpp: since 0.30, Ollama's packages contain one
RUNNER_PROGRAMS = (LLAMA_SERVER, "ollama_llama_server")  # newer and older releases than `ollama runner`
HOMEBREW_FOLDERS = (("cellar", "ollama"), ("opt", "ollama"))
INIT = ("init", "systemd", "launchd")
RunnerId = tuple[int, float]
"""A runner's PID and its `started_at`, because the system may give the PID to another process later."""


def is_server(process: ProcessSnapshot) -> bool:
    """Return whether the process is `ollama serve`, by the same test as Ollama's own menu-bar app."""
    return process.program == "ollama" and process.command in SERVER_COMMANDS


def is_runner(process: ProcessSnapshot) -> bool:
    """Return whether the process holds a model for Ollama.

    A runner is `ollama runner --model …`, or a llama-server that runs from Ollama's folder or on one of its
    blobs. A llama-server on a blob may also be one that a person runs, without Ollama: it is Ollama's if its
    parent is Ollama's server, or if `is_ollamas_own` returns True.
    """
    if process.program == "ollama":
        return process.command == "runner"
    if process.program not in RUNNER_PROGRAMS:
        return False
    return _is_in_ollamas_folder(process) or _uses_blob(process)


def is_ollamas_own(runner: ProcessSnapshot) -> bool:
    """Return whether only Ollama can have started the runner: its program's name is Ollama's, or it is the
    llama-server in Ollama's folder and runs on one of Ollama's blobs.
    """
    return runner.program != LLAMA_SERVER or (_is_in_ollamas_folder(runner) and _uses_blob(runner))


def is_menu_bar_app(process: ProcessSnapshot) -> bool:
    """Return whether the process is Ollama.app, which runs a server of its own and restarts it."""
    return "Ollama.app/Contents/MacOS/" in (process.exe or " ".join(process.arguments[:1]))


def runners_of_servers(
    processes: Iterable[ProcessSnapshot], known: Container[RunnerId] = ()
) -> frozenset[RunnerId]:
    """Return the runners among `processes` that are children of an Ollama server now, or were when an earlier
    call returned `known`.
    """
    processes = tuple(processes)
    servers = {process.pid for process in processes if is_server(process)}
    runners = ((p.ppid, (p.pid, p.started_at)) for p in processes if is_runner(p))
    return frozenset(identity for ppid, identity in runners if ppid in servers or identity in known)


def orphaned_runners(
    processes: Iterable[ProcessSnapshot], known: Container[RunnerId] = ()
) -> tuple[ProcessSnapshot, ...]:
    """Return the runners whose server has ended. They get no more requests, and still hold their model's
    memory.

    `processes` must contain the runners' parents, as far as these still run. A service manager may run a
    person's own llama-server on a model file of Ollama's, with init as its parent. So a llama-server counts
    only if `is_ollamas_own` returns True for it, or if it is among the `known` runners of a server.
    """
    processes = tuple(processes)
    by_pid = {process.pid: process for process in processes}
    runners = (p for p in processes if is_runner(p) and _is_orphan(p, by_pid.get(p.ppid)))
    return tuple(p for p in runners if is_ollamas_own(p) or (p.pid, p.started_at) in known)


def _is_in_ollamas_folder(process: ProcessSnapshot) -> bool:
    """Return whether the program lies where Ollama's packages have their llama-server: directly in a folder
    `ollama`, such as /usr/local/lib/ollama, or anywhere in Ollama.app or in Homebrew's folder of Ollama.

    A folder `ollama` further up does not count, because a person may keep llama.cpp in it.
    """
    path = PurePath(process.words[0] if process.words else "")
    folders = tuple(part.lower() for part in path.parent.parts)
    is_in_package = "ollama.app" in folders or any(pair in HOMEBREW_FOLDERS for pair in pairwise(folders))
    return is_in_package or folders[-1:] == ("ollama",)


def _uses_blob(process: ProcessSnapshot) -> bool:
    """Return whether the command line names a model file of Ollama's, which lies in a folder `blobs`."""
    return any("/blobs/sha256-" in word for word in process.words)


def _is_orphan(runner: ProcessSnapshot, parent: ProcessSnapshot | None) -> bool:
    """Return whether the runner's parent is init, which adopts every process whose parent has ended.

    `parent` is the process with the PID `runner.ppid`. If it is None, because no such process was found, the
    runner counts as an orphan only if that PID is at most 1, as init's is.
    """
    return runner.ppid <= 1 or (parent is not None and parent.name in INIT)
