"""The RAM tier of the prompt cache: blocks and snapshots by key. The least recently used ones are dropped
when all together exceed a limit. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlx_server.engine.prompt_cache.entry import Entry
from mlx_server.engine.prompt_cache.keys import parent_of
from mlx_server.engine.prompt_cache.lru import Lru


class RamTier:
    """Blocks and snapshots in RAM, `limit_bytes` at most."""

    def __init__(self, limit_bytes: int) -> None:
        self._keys, self._entries = Lru(limit_bytes, parent_of), dict[str, Entry]()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def total_bytes(self) -> int:
        return self._keys.total_bytes

    def get(self, key: str) -> Entry | None:
        """Return the entry of `key`; None if it is not in RAM."""
        return self._entries.get(key)

    def following(self, parent: str) -> list[str]:
        """Return the keys of the blocks that directly follow a block, the newest first. `parent` is the first
        part of their keys (see `keys.as_parent`).
        """
        return self._keys.group(parent)

    def insert(self, entries: Mapping[str, Entry], chain: Sequence[str] = ()) -> list[str]:
        """Insert `entries` as the most recently used ones. Return the keys that had to be dropped, which may
        be among the inserted ones. `chain` has the keys of all consecutive blocks to which the new ones
        belong (see `Lru.add`).
        """
        self._entries.update(entries)
        return self._without(self._keys.add({key: entry.nbytes for key, entry in entries.items()}, chain))

    def insert_oldest(self, key: str, entry: Entry) -> None:
        """Insert `entry` as the least recently used one, unless others would have to be dropped for it."""
        if self._keys.add_oldest(key, entry.nbytes):
            self._entries[key] = entry

    def use(self, chain: Sequence[str]) -> None:
        """Mark the keys of `chain`, which belong to consecutive blocks, as used."""
        self._keys.use(chain)

    def discard(self, key: str) -> None:
        """Remove `key` if it is present."""
        self._entries.pop(key, None)
        self._keys.discard(key)

    def shrink(self, limit_bytes: int) -> list[str]:
        """Drop the least recently used entries until the rest has at most `limit_bytes`, without changing the
        limit. Return the dropped keys.
        """
        limit, dropped = self._keys.limit_bytes, self.resize(limit_bytes)
        self._keys.limit_bytes = limit
        return dropped

    def resize(self, limit_bytes: int) -> list[str]:
        """Set the limit. Return the keys that were dropped because of it."""
        return self._without(self._keys.resize(max(limit_bytes, 0)))

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self._keys.clear()

    def _without(self, dropped: list[str]) -> list[str]:
        for key in dropped:
            self._entries.pop(key, None)
        return dropped
