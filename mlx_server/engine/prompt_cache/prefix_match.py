"""The result of a search for the beginning of a prompt, and of its restoration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlx_server.engine.prompt_cache.block import BlockRun
from mlx_server.engine.prompt_cache.entry import Value
from mlx_server.engine.prompt_cache.snapshot import Snapshot

Tags = Mapping[str, str]


@dataclass(frozen=True)
class PrefixMatch:
    """The cached part of `tokens`. `keys` are consecutive blocks from the first token on; those in `held` are
    in memory, the others on disk. After them, a part of one of `next_keys` (blocks that follow the last one)
    may match too. `snapshots`, the longest first, are an alternative; each matches the beginning of `tokens`.
    """

    tokens: tuple[int, ...]
    block_tokens: int
    keys: tuple[str, ...]
    next_keys: tuple[str, ...]
    snapshots: tuple[str, ...]
    held: Mapping[str, Value]
    tags: Tags


@dataclass(frozen=True)
class RestoredPrefix:
    """What `BlockStore.restore` returns.

    `value` is None if nothing could be read; `missing` and `broken` are keys.
    """

    value: BlockRun | Snapshot | None = None
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass
class HitCounts:
    """Counts since the start of the engine, in blocks."""

    hits_ram: int = 0
    hits_disk: int = 0
    misses: int = 0  # whole blocks of prompts that had to be computed
    missing: int = 0  # files that another engine or a person deleted
    broken: int = 0


@dataclass
class RestoreProgress:
    """The state of one call of `BlockStore.restore`; `used`, `missing` and `broken` are keys."""

    match: PrefixMatch
    used: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def result(self, value: BlockRun | Snapshot | None) -> RestoredPrefix:
        return RestoredPrefix(value, tuple(self.used), tuple(self.missing), tuple(self.broken))
