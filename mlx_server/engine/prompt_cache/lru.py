"""Least recently used goes first, counted in bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator


class Lru:
    """Keys with their sizes; never more than `limit_bytes` together.

    `group_of` sorts them: those of a group can be asked for.
    """

    def __init__(self, limit_bytes: int, group_of: Callable[[str], str] = str) -> None:
        self.limit_bytes = limit_bytes
        self.total_bytes = 0
        self._group_of = group_of
        self._sizes: OrderedDict[str, int] = OrderedDict()  # the longest unused first
        self._groups: dict[str, dict[str, None]] = {}  # their keys, the newest last

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._sizes))

    def add(self, key: str, size: int) -> list[str]:
        """Takes `key` in as the newest; those that must go for it, itself where it is too big."""
        self.discard(key)
        if size > self.limit_bytes:
            return [key]
        self._sizes[key] = size
        self._groups.setdefault(self._group_of(key), {})[key] = None
        self.total_bytes += size
        return self._shrink()

    def group(self, name: str) -> list[str]:
        """The keys of a group, the newest first."""
        return list(reversed(self._groups.get(name, {})))

    def use(self, keys: Iterable[str]) -> None:
        """A chain was used. Its end is the first to go: a block is of no use without those before it."""
        for key in reversed(list(keys)):
            if key in self._sizes:
                self._sizes.move_to_end(key)

    def discard(self, key: str) -> None:
        """It is gone; nothing where it was not there."""
        if key in self._sizes:
            self._forget(key)

    def resize(self, limit_bytes: int) -> list[str]:
        """A new limit; those that must go."""
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
