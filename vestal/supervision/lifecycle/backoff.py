"""How long to wait before a restart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """`min(base · 2^n, max)` seconds before the restart that follows `n` earlier ones (R3.3)."""

    base_s: float = 2.0
    max_s: float = 60.0

    def delay(self, n: int) -> float:
        if n > 64:  # 2^n outgrows a float long after it has outgrown max_s
            return self.max_s
        return min(self.base_s * 2.0 ** max(0, n), self.max_s)
