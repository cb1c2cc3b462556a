"""Measure how much of its memory limit this container uses, and limit batches and parallel steps when memory
is short.

`ContainerMemory`, `batch_size` and `step_may_begin` are pure; `read` reads the cgroup, version 2 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SHRINK_AT = 0.80
PAUSE_AT = 0.90
MAX_HOLD_S = 600.0  # after this, a step starts although memory is short, if no other step runs
NO_LIMIT_FROM_BYTES = 2**60  # version 1 says "no limit" with a number near 2^63


@dataclass(frozen=True)
class ContainerMemory:
    """The memory of this container: the bytes in use, without page cache that the kernel can reclaim, and the
    limit in bytes; None if the container has no limit.
    """

    used_bytes: int
    limit_bytes: int | None

    @property
    def fraction(self) -> float:
        """Return the used share of the limit, from 0 to 1; 0 without a limit."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes else 0.0


def batch_size(wanted: int, fraction: float) -> int:
    """Return how many items the next batch may have. `fraction` is the used share of the container's memory
    limit.

    Below 80 % it may have `wanted` items; from 80 % on, at most half as many, decreasing to 1 near 90 %; from
    90 % on, 0, which means that the caller has to pause.
    """
    if fraction >= PAUSE_AT:
        return 0
    if fraction < SHRINK_AT:
        return wanted
    left = (PAUSE_AT - fraction) / (PAUSE_AT - SHRINK_AT)
    return max(1, int(wanted * left / 2))


def step_may_begin(running: int, most: int, fraction: float, waited_s: float) -> bool:
    """Return True if a task's step that has waited for `waited_s` seconds may begin while `running` other
    steps run. `fraction` is the used share of the container's memory limit. `most` is the configured maximum
    of parallel model calls, from which the limit of parallel steps is computed.

    Below 80 % of the memory limit, every step may begin. Between 80 % and 90 %, at most
    `batch_size(most, fraction)` steps run: half of `most` or fewer, but at least one. From 90 % on, no step
    begins, except one that has waited ten minutes while no other step runs, because it would otherwise wait
    forever.
    """
    if fraction < SHRINK_AT or running < batch_size(most, fraction):
        return True
    return running == 0 and waited_s >= MAX_HOLD_S


def read(root: Path = CGROUP) -> ContainerMemory | None:
    """Return the memory of this container's cgroup; None without a cgroup (on a Mac, or if it is not
    mounted).
    """
    try:
        if (root / "memory.current").exists():
            return _reading(root, "memory.current", "memory.max", "inactive_file")
        root = root / "memory"
        return _reading(root, "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
    except (OSError, ValueError):
        return None


def _reading(root: Path, usage: str, limit: str, reclaimable: str) -> ContainerMemory:
    used = int((root / usage).read_text()) - _stat((root / "memory.stat").read_text(), reclaimable)
    return ContainerMemory(max(0, used), _limit((root / limit).read_text().strip()))


def _limit(text: str) -> int | None:
    return None if text == "max" or int(text) >= NO_LIMIT_FROM_BYTES else int(text)


def _stat(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
