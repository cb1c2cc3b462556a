"""The host's memory: what there is, what is left, and on a Mac what is wired down."""

import sys
from dataclasses import asdict, dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Memory:
    """Bytes. `wired_fraction` is None where the system has no such thing (Linux)."""

    total_bytes: int
    available_bytes: int
    swap_used_bytes: int
    swap_total_bytes: int
    wired_bytes: int | None = None

    @property
    def wired_fraction(self) -> float | None:
        return None if self.wired_bytes is None else self.wired_bytes / self.total_bytes

    @property
    def available_fraction(self) -> float:
        return self.available_bytes / self.total_bytes

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read() -> Memory:
    """How things stand now."""
    virtual = psutil.virtual_memory()
    swap_used, swap_total = _swap()
    wired = int(getattr(virtual, "wired", 0)) if sys.platform == "darwin" else None
    return Memory(virtual.total, virtual.available, swap_used, swap_total, wired)


def _swap() -> tuple[int, int]:
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError):  # /proc/vmstat is hidden in some containers
        return 0, 0
    return swap.used, swap.total
