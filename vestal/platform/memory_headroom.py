"""Decide whether the machine has enough memory to start a model server. Pure.

SIGKILL can leak the memory that a process had wired for Metal, until the next reboot: one report counts 414
GiB after 233 restarts. A server is therefore not restarted while most of the memory is wired and no living
model server holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vestal.platform.memory import Memory

WIRED_LIMIT = 0.70
AVAILABLE_LIMIT = 0.03
SWAP_LIMIT = 0.95


@dataclass(frozen=True)
class Headroom:
    """The judgement whether the machine has enough memory for another model server. `shortage` says what is
    wrong, and is empty if there is enough.

    `needs_reboot` is true if waiting does not help, because only a reboot frees the memory.
    """

    shortage: str = ""
    needs_reboot: bool = False

    @property
    def remedy(self) -> str:
        """Return what a person can do about the shortage; "" if there is no shortage."""
        if self.needs_reboot:
            return "only a reboot frees it: save your work and restart the machine"
        return "close programs, or load smaller or fewer models" if self.shortage else ""

    @property
    def message(self) -> str:
        """Return the shortage and its remedy on one line; empty if there is enough memory."""
        return f"{self.shortage}; {self.remedy}" if self.shortage else ""


def may_be_stranded(memory: Memory) -> bool:
    """Return whether more than WIRED_LIMIT of the machine's memory is wired, so that dead processes may have
    leaked some of it.

    Only then does the result of `headroom` depend on its argument `model_server_bytes`, which the caller must
    then measure: wired memory that running model servers hold does not count as leaked.
    """
    return memory.wired_fraction is not None and memory.wired_fraction > WIRED_LIMIT


def headroom(memory: Memory, model_server_bytes: int = 0) -> Headroom:
    """Return the headroom, which says whether another model server may be started.

    `model_server_bytes` is how much memory the running model servers hold. Wired memory beyond that counts as
    leaked by dead processes. There is a shortage if more than WIRED_LIMIT of all memory counts as leaked, or
    if almost no memory is available and the swap space is full or missing.
    """
    stranded = ((memory.wired_bytes or 0) - model_server_bytes) / memory.total_bytes
    if stranded > WIRED_LIMIT:
        shortage = f"{stranded:.0%} of the machine's memory is wired down and no living model server holds it"
        return Headroom(shortage, needs_reboot=True)
    can_swap = memory.swap_used_bytes < SWAP_LIMIT * memory.swap_total_bytes
    if memory.available_fraction < AVAILABLE_LIMIT and not can_swap:
        return Headroom(f"only {memory.available_fraction:.0%} of the machine's memory is available")
    return Headroom()
