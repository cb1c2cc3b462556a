"""Evict the least recently used keys when their total size in bytes exceeds a limit. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping


class Lru:
    """A set of keys, each with a size in bytes. The least recently used keys are evicted so that all sizes
    together never exceed `limit_bytes`.

    `group_of` returns the name of the group to which a key belongs. `group` lists the keys of a group.
    """

    def __init__(self, limit_bytes: int, group_of: Callable[[str], str] = str) -> None:
        self.limit_bytes = limit_bytes
        self.total_bytes = 0
        self._group_of = group_of
        self._sizes: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._groups: dict[str, dict[str, None]] = {}  # keys by group, the newest last

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys, least recently used first."""
        return iter(list(self._sizes))

    def add(self, sizes: Mapping[str, int], chain: Iterable[str] = ()) -> list[str]:
        """Add the keys of `sizes`, which maps each key to its size in bytes, and mark them and the keys of
        `chain` as used. `chain` has the keys of a prompt's consecutive blocks, including those of `sizes`; it
        is empty if these keys do not belong to consecutive blocks.

        Return the evicted keys. The least recently used keys outside the chain are evicted first. If that is
        not enough, keys are evicted from the end of the chain, even if they have just been added. A key whose
        size exceeds the limit is not added, and is returned, too.
        """
        known = list(chain)
        refused = [key for key, size in sizes.items() if size > self.limit_bytes]
        for key, size in sizes.items():
            self.discard(key)
            if size <= self.limit_bytes:
                self._sizes[key] = size
                self._groups.setdefault(self._group_of(key), {})[key] = None
                self.total_bytes += size
        self.use(dict.fromkeys([*known, *sizes]))
        return refused + self._shrink()

    def add_oldest(self, key: str, size: int) -> bool:
        """Add a key as the least recently used one. Return False if it is already present, or if other keys
        would have to be evicted for it.
        """
        if key in self._sizes or self.total_bytes + size > self.limit_bytes:
            return False
        self.add({key: size})
        self._sizes.move_to_end(key, last=False)
        return True

    def size_of(self, key: str) -> int:
        """Return the size in bytes with which `key` was added. Raises KeyError if `key` is not present."""
        return self._sizes[key]

    def group(self, name: str) -> list[str]:
        """Return the keys for which `group_of` returns `name`, the most recently added first; [] if there are
        none.
        """
        return list(reversed(self._groups.get(name, {})))

    def use(self, chain: Iterable[str]) -> None:
        """Mark the keys of `chain`, which belong to consecutive blocks, as used.

        The end of the chain is evicted first, since a block cannot be used without the blocks before it.
        """
        for key in reversed(list(chain)):
            if key in self._sizes:
                self._sizes.move_to_end(key)

    def discard(self, key: str) -> None:
        """Remove `key` if it is present."""
        if key in self._sizes:
            self._forget(key)

    def clear(self) -> None:
        """Remove all keys."""
        self._sizes.clear()
        self._groups.clear()
        self.total_bytes = 0

    def resize(self, limit_bytes: int) -> list[str]:
        """Set the limit, and return the keys that are evicted for it."""
        self.limit_bytes = limit_bytes
        return self._shrink()

    def _shrink(self) -> list[str]:
        gone = []
        while self.total_bytes > self.limit_bytes:
            gone.append(next(iter(self._sizes)))
            self._forget(gone[-1])
        return gone

    def _forget(self, key: str) -> None:
        self.total_bytes -= self._sizes.pop(key)
        name = self._group_of(key)
        group = self._groups[name]
        del group[key]
        if not group:
            del self._groups[name]
