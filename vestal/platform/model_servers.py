"""Measure how much memory the machine's model servers hold: Vestal's, Ollama's, and mlx_lm.server."""

from __future__ import annotations

import psutil

from vestal.platform import memory
from vestal.platform.memory import Memory
from vestal.platform.memory_headroom import Headroom, headroom, may_be_stranded

PROGRAMS = frozenset({"ollama", "ollama-runner", "llama-server"})
MODULES = ("mlx_server.engine", "mlx_lm")


def current_headroom(now: Memory | None = None) -> Headroom:
    """Return the headroom, which says whether the machine has memory for one more model server.

    `now` is the machine's memory, which is read if `now` is None. Only if much memory is wired, measure how
    much the running model servers hold, because for that every process has to be read.
    """
    now = now or memory.read()
    return headroom(now, resident_bytes() if may_be_stranded(now) else 0)


def resident_bytes() -> int:
    """Return the resident memory of all model servers together, in bytes."""
    total = 0
    for process in psutil.process_iter(["name", "cmdline", "memory_info"]):
        info = process.info
        if info["memory_info"] and is_model_server(info["name"] or "", info["cmdline"] or []):
            total += info["memory_info"].rss
    return total


def is_model_server(name: str, command: list[str]) -> bool:
    """Return whether a process with this name and command line serves models."""
    return name.lower() in PROGRAMS or any(word.startswith(MODULES) for word in command)
