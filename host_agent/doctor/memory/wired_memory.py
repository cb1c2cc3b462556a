"""Wired memory has piled up after crashes: no restart frees it, and each kill may strand more."""

import sys
from collections.abc import Iterator
from dataclasses import replace

from host_agent.doctor.finding import Finding
from vestal.config import Config
from vestal.platform import commands, memory, model_servers
from vestal.platform.macos import memory_tools
from vestal.platform.memory import Memory
from vestal.platform.memory_headroom import Headroom, headroom

NAME = "wired_memory"
PRESSED = 0.10  # of `memory_pressure`'s free share; a Mac with a large model loaded has 20 % and is well


def look(config: Config) -> Iterator[Finding]:
    """On a Mac what `vm_stat` and `memory_pressure` tell; elsewhere nothing is wired for good."""
    now = memory.read()
    if sys.platform != "darwin":
        yield judge(now)
        return
    if wired_bytes := memory_tools.parse_vm_stat(commands.output(*memory_tools.VM_STAT_COMMAND) or ""):
        now = replace(now, wired_bytes=wired_bytes)
    free = memory_tools.parse_memory_pressure(commands.output(*memory_tools.MEMORY_PRESSURE_COMMAND) or "")
    yield judge(now, free, model_servers.resident_bytes())


def judge(now: Memory, free: float | None = None, held_bytes: int = 0) -> Finding:
    """As the agent judges before it starts a model server. `free` is the share that `memory_pressure` calls
    free; None where it is not known. What living model servers hold (`held_bytes`) is theirs."""
    room = headroom(now, held_bytes)
    if not room.shortage and free is not None and free < PRESSED:
        room = Headroom(f"the system is short of memory ({free:.0%} free)")
    if not room.shortage:
        return Finding(NAME, "ok", _usual(now), "", _evidence(now, free))
    remedy = f"stop restarting: {room.remedy}" if room.needs_reboot else room.remedy
    return Finding(NAME, "fault", room.shortage, remedy, _evidence(now, free))


def _usual(now: Memory) -> str:
    if now.wired_fraction is None:
        return f"{now.available_fraction:.0%} of the machine's memory is available"
    return f"{now.wired_fraction:.0%} of the machine's memory is wired down"


def _evidence(now: Memory, free: float | None) -> str:
    if now.wired_bytes is None:
        return ""
    told = f"vm_stat: {now.wired_bytes / 1e9:.1f} of {now.total_bytes / 1e9:.1f} GB wired down"
    return told if free is None else f"{told}; memory_pressure: {free:.0%} free"
