"""What a search of the prompt cache is about: what was found, what came of it, and the counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlx_server.engine.prompt_cache.block import Run
from mlx_server.engine.prompt_cache.entry import Value
from mlx_server.engine.prompt_cache.snapshot import Snapshot

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Find:
    """Blocks in a row, from the first of `tokens`: those `held` in memory, the others on disk.

    After them a part may be had from one of `next_keys`: blocks that follow the last. Or else it is one of
    `snapshots`, the longest first, each of which begins `tokens`.
    """

    tokens: tuple[int, ...]
    block_tokens: int
    keys: tuple[str, ...]
    next_keys: tuple[str, ...]
    snapshots: tuple[str, ...]
    held: Mapping[str, Value]
    identity: str


@dataclass(frozen=True)
class Gathered:
    """What `gather` made of a find: `value` None for nothing. `missing` and `broken` must be forgotten."""

    value: Run | Snapshot | None = None
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass
class Counts:
    """Since the engine's start, in blocks."""

    hits_ram: int = 0
    hits_disk: int = 0
    misses: int = 0  # of the prompts' whole blocks, those that had to be computed
    missing: int = 0  # files gone, to another engine's limit or by hand
    broken: int = 0


@dataclass
class Reading:
    """One `gather` at work."""

    find: Find
    used: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def done(self, value: Run | Snapshot | None) -> Gathered:
        return Gathered(value, tuple(self.used), tuple(self.missing), tuple(self.broken))
