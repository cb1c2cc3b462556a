"""What the living model servers of this machine hold in memory: ours, Ollama's, and others of mlx-lm."""

from __future__ import annotations

import psutil

from vestal.platform import memory
from vestal.platform.memory import Memory
from vestal.platform.memory_headroom import Headroom, headroom, may_be_stranded

PROGRAMS = frozenset({"ollama", "ollama-runner", "llama-server"})
MODULES = ("mlx_server.engine", "mlx_lm")


def look(now: Memory | None = None) -> Headroom:
    """The machine's headroom. Who holds wired memory is asked only where there is much of it."""
    now = now or memory.read()
    return headroom(now, held_bytes() if may_be_stranded(now) else 0)


def held_bytes() -> int:
    """Their resident memory together."""
    total = 0
    for process in psutil.process_iter(["name", "cmdline", "memory_info"]):
        told = process.info
        if told["memory_info"] and is_model_server(told["name"] or "", told["cmdline"] or []):
            total += told["memory_info"].rss
    return total


def is_model_server(name: str, command: list[str]) -> bool:
    return name.lower() in PROGRAMS or any(word.startswith(MODULES) for word in command)
