"""Whether the machine's memory lets a model server be started again (R3.6, R6.3). Pure.

SIGKILL of a process that had much memory wired down for Metal can strand it until the next reboot: one report
counts 414 GiB over 233 restarts. What living model servers hold is theirs, and not stranded.
"""

from __future__ import annotations

from dataclasses import dataclass

from vestal.platform.memory import Memory

WIRED_LIMIT = 0.70
AVAILABLE_LIMIT = 0.03
SWAP_LIMIT = 0.95


@dataclass(frozen=True)
class Headroom:
    """`lacking` says what is wrong, nothing where all is well; `only_a_reboot`: waiting does not help."""

    lacking: str = ""
    only_a_reboot: bool = False

    @property
    def remedy(self) -> str:
        if self.only_a_reboot:
            return "only a reboot frees it: save your work and restart the machine"
        return "close programs, or load smaller or fewer models" if self.lacking else ""

    @property
    def sentence(self) -> str:
        """The two together, for one line."""
        return f"{self.lacking}; {self.remedy}" if self.lacking else ""


def may_be_stranded(memory: Memory) -> bool:
    """Whether it is worth asking who holds the wired memory."""
    return memory.wired_fraction is not None and memory.wired_fraction > WIRED_LIMIT


def headroom(memory: Memory, held_bytes: int = 0) -> Headroom:
    """The word on starting a model server; living ones hold `held_bytes`."""
    stranded = ((memory.wired_bytes or 0) - held_bytes) / memory.total_bytes
    if stranded > WIRED_LIMIT:
        lacking = f"{stranded:.0%} of the machine's memory is wired down and no living model server holds it"
        return Headroom(lacking, only_a_reboot=True)
    swap_left = memory.swap_used_bytes < SWAP_LIMIT * memory.swap_total_bytes
    if memory.available_fraction < AVAILABLE_LIMIT and not swap_left:
        return Headroom(f"only {memory.available_fraction:.0%} of the machine's memory is available")
    return Headroom()
