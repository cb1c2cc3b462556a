"""Diagnose leaked wired memory on a Mac: crashes leave it behind, no restart frees it, and each kill may add
more.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.sentences import as_sentence
from vestal.config import Config
from vestal.config.units import format_size
from vestal.platform import commands, memory, model_servers
from vestal.platform.macos import memory_tools
from vestal.platform.memory import Memory
from vestal.platform.memory_headroom import Headroom, headroom

NAME = "wired_memory"
# The least free fraction in `memory_pressure`'s report. A Mac with a large model has 20 % and works well.
MIN_FREE_FRACTION = 0.10


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield one finding: a fault if this machine is short of memory or, on a Mac, wired memory has leaked;
    else `ok`.

    On a Mac, `vm_stat` and `memory_pressure` are read too. Other systems free a process's wired memory when
    the process ends.
    """
    now = memory.read()
    if sys.platform != "darwin":
        yield assess_memory(now)
        return
    if wired_bytes := memory_tools.parse_vm_stat(commands.output(*memory_tools.VM_STAT_COMMAND) or ""):
        now = replace(now, wired_bytes=wired_bytes)
    free = memory_tools.parse_memory_pressure(commands.output(*memory_tools.MEMORY_PRESSURE_COMMAND) or "")
    yield assess_memory(now, free, model_servers.resident_bytes())


def assess_memory(now: Memory, free_fraction: float | None = None, model_server_bytes: int = 0) -> Finding:
    """Return a fault if, by the host agent's rules, the memory `now` does not allow the start of a model
    server, or if `free_fraction` is below MIN_FREE_FRACTION; else return `ok`.

    `free_fraction` is the free share of memory that `memory_pressure` reports, or None if unknown.
    `model_server_bytes` is the memory that running model servers hold. Wired memory beyond this amount counts
    as leaked by dead processes, and too much leaked memory is one reason for a fault.
    """
    room = headroom(now, model_server_bytes)
    if not room.shortage and free_fraction is not None and free_fraction < MIN_FREE_FRACTION:
        room = Headroom(f"the system is short of memory ({free_fraction:.0%} free)")
    if not room.shortage:
        return Finding(NAME, "ok", _ok_sentence(now), "", _evidence(now, free_fraction))
    remedy = f"Stop restarting: {room.remedy}." if room.needs_reboot else as_sentence(room.remedy)
    return Finding(NAME, "fault", as_sentence(room.shortage), remedy, _evidence(now, free_fraction))


def _ok_sentence(now: Memory) -> str:
    if now.wired_fraction is None:
        return f"{now.available_fraction:.0%} of the machine's memory is available."
    return f"{now.wired_fraction:.0%} of the machine's memory is wired down."


def _evidence(now: Memory, free_fraction: float | None) -> str:
    if now.wired_bytes is None:
        return ""
    wired = f"vm_stat: {format_size(now.wired_bytes)} of {format_size(now.total_bytes)} wired down"
    return wired if free_fraction is None else f"{wired}; memory_pressure: {free_fraction:.0%} free"


DIAGNOSIS = Diagnosis(NAME, diagnose)
