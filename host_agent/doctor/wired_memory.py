"""Wired memory has piled up after crashes: no restart frees it, and each kill may strand more."""

import sys
from collections.abc import Iterator

from host_agent.config import Config
from host_agent.doctor.finding import Finding
from host_agent.host import commands, memory, memory_pressure, model_servers, vm_stat
from host_agent.host.headroom import AVAILABLE_LIMIT, WIRED_LIMIT

NAME = "wired_memory"
PRESSED = 0.10  # of `memory_pressure`'s free share; a Mac with a large model loaded has 20 % and is well
REBOOT = "stop restarting: only a reboot frees it"
CLOSE = "close programs, or load smaller or fewer models"


def look(config: Config) -> Iterator[Finding]:
    """On a Mac what `vm_stat` and `memory_pressure` tell; elsewhere nothing is wired for good."""
    now = memory.read()
    if sys.platform != "darwin":
        yield judge_available(now.available_fraction)
        return
    stat = vm_stat.parse(commands.output(*vm_stat.COMMAND) or "")
    wired = stat.wired_bytes if stat else now.wired_bytes or 0
    free = memory_pressure.parse(commands.output(*memory_pressure.COMMAND) or "")
    yield judge(wired, now.total_bytes, free, model_servers.held_bytes())


def judge(wired_bytes: int, total_bytes: int, free: float | None, held_bytes: int = 0) -> Finding:
    """`free` is the share that `memory_pressure` calls free; None where it is not known. What living model
    servers hold (`held_bytes`) is theirs."""
    share = wired_bytes / total_bytes
    evidence = f"vm_stat: {wired_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB wired down"
    if free is not None:
        evidence += f"; memory_pressure: {free:.0%} free"
    if (wired_bytes - held_bytes) / total_bytes > WIRED_LIMIT:
        sentence = (
            f"{share:.0%} of the machine's memory is wired down, and living model servers do not hold it"
        )
        return Finding(NAME, "fault", sentence, REBOOT, evidence)
    if free is not None and free < PRESSED:
        return Finding(NAME, "fault", f"the system is short of memory ({free:.0%} free)", CLOSE, evidence)
    return Finding(NAME, "ok", f"{share:.0%} of the machine's memory is wired down", "", evidence)


def judge_available(available: float) -> Finding:
    """Where memory cannot be wired down for good."""
    if available < AVAILABLE_LIMIT:
        return Finding(NAME, "fault", f"only {available:.0%} of the machine's memory is available", CLOSE)
    return Finding(NAME, "ok", f"{available:.0%} of the machine's memory is available")
