"""What the prompt cache has stored for the beginning of a prompt, and the part of it that was read for a
request. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_server.engine.prompt_cache.block import BlockRun
from mlx_server.engine.prompt_cache.entry import Value
from mlx_server.engine.prompt_cache.snapshot import Snapshot

Tags = Mapping[str, str]


@dataclass(frozen=True)
class PrefixMatch:
    """What the prompt cache holds for the beginning of `tokens`.

    `keys` are the keys of consecutive blocks, of `block_tokens` tokens each, from the first token on.
    `next_keys` are the keys of stored blocks that directly followed the last block of `keys` in earlier
    prompts; if `keys` is empty, they are the keys of the first blocks of earlier prompts. The first tokens of
    such a block may match `tokens`, too. `snapshots` are the keys of stored snapshots, the longest first. A
    snapshot is the model's whole state after a beginning of `tokens`, and can be used instead of blocks.
    `held` has, by key, the blocks and snapshots that are in memory; the others are on disk. `tags` are the
    model's identity, name and settings. Each file of the cache contains the tags of its model.
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
    """The result of `BlockStore.restore`.

    `value` holds the restored beginning of the prompt; None if nothing could be read. The other fields have
    keys of blocks or snapshots: `used` of those in `value`, `missing` of those whose file does not exist, and
    `broken` of those whose file is unreadable or damaged.
    """

    value: BlockRun | Snapshot | None = None
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass
class HitCounts:
    """Counts since the engine's start: blocks or snapshots restored from RAM and from disk, blocks of prompts
    that had to be computed (`misses`), and files that had been deleted (`missing`) or were unusable
    (`broken`).
    """

    hits_ram: int = 0
    hits_disk: int = 0
    misses: int = 0  # whole blocks of prompts that had to be computed
    missing: int = 0  # files that another engine or a person deleted
    broken: int = 0
