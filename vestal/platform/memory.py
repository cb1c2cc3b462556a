"""Read the machine's memory: how much there is, how much is available, and on a Mac how much is wired."""

import sys
from dataclasses import asdict, dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Memory:
    """The machine's memory, in bytes.

    Wired memory (`wired_bytes`) can be neither compressed nor swapped out; Metal wires what the GPU uses. It
    exists on macOS only, and is None elsewhere.
    """

    total_bytes: int
    available_bytes: int
    swap_used_bytes: int
    swap_total_bytes: int
    wired_bytes: int | None = None

    @property
    def wired_fraction(self) -> float | None:
        """Return the wired share of all memory, from 0 to 1; None where `wired_bytes` is None."""
        return None if self.wired_bytes is None else self.wired_bytes / self.total_bytes

    @property
    def available_fraction(self) -> float:
        """Return the available share of all memory, from 0 to 1."""
        return self.available_bytes / self.total_bytes

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary for JSON."""
        return asdict(self)


def read() -> Memory:
    """Return the machine's memory as it is now."""
    virtual = psutil.virtual_memory()
    swap_used, swap_total = _read_swap()
    wired = int(getattr(virtual, "wired", 0)) if sys.platform == "darwin" else None
    return Memory(virtual.total, virtual.available, swap_used, swap_total, wired)


def _read_swap() -> tuple[int, int]:
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError):  # some containers hide /proc/vmstat
        return 0, 0
    return swap.used, swap.total
