"""Least recently used goes first, counted in bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping


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
        """The longest unused first."""
        return iter(list(self._sizes))

    def add(self, sizes: Mapping[str, int], chain: Iterable[str] = ()) -> list[str]:
        """Takes `sizes`' keys in, as the ends of `chain`, all of which counts as used now.

        Returns those that must go for it: others first, then the chain's own end. What is greater than the
        limit alone is not taken in.
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

    def group(self, name: str) -> list[str]:
        """The keys of a group, the newest first."""
        return list(reversed(self._groups.get(name, {})))

    def use(self, chain: Iterable[str]) -> None:
        """A chain was used. Its end is the first to go: a block is of no use without those before it."""
        for key in reversed(list(chain)):
            if key in self._sizes:
                self._sizes.move_to_end(key)

    def discard(self, key: str) -> None:
        """It is gone; nothing where it was not there."""
        if key in self._sizes:
            self._forget(key)

    def clear(self) -> None:
        """All are gone."""
        self._sizes.clear()
        self._groups.clear()
        self.total_bytes = 0

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
