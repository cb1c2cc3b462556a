"""Choose the blocks that are read from disk into RAM before a prompt asks for them. Pure.

An engine that has just started has nothing in RAM. The first request with a known prompt would wait until its
blocks are read, which takes longer than computing a token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, parent_of

RAM_SHARE = 0.5
"""The share of the RAM tier that may be filled in advance."""

SLICE_BYTES = 16 << 20
"""The bytes read at once, in some 20 ms. A request that comes meanwhile shares the processor for so long."""

MOST_BLOCKS = 4096
"""How many of the newest blocks of all models are considered: looking at more would delay the first request.
"""


def newest_of(prefixes: PrefixKeys, newest: Iterable[str]) -> list[str]:
    """Return the keys of one model among the first MOST_BLOCKS of `newest`, in the same order.

    A block without the one before it is left out, since it cannot be used.
    """
    keys = list(islice(newest, MOST_BLOCKS))
    following: dict[str, list[str]] = {}
    for key in keys:
        following.setdefault(parent_of(key), []).append(key)
    own, parents = set[str](), [as_parent(prefixes.root), prefixes.snapshots]
    while parents:
        found = following.pop(parents.pop(), [])
        own.update(found)
        parents.extend(map(as_parent, found))
    return [key for key in keys if key in own]


class PreloadQueue:
    """The keys of one model that are still to be read, in order."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = deque(keys)

    def take(self, bytes_of: Callable[[str], int | None], budget_bytes: int) -> list[str]:
        """Remove and return the next keys: SLICE_BYTES together at most, or one larger key.

        `bytes_of` returns None for a key that need not be read. The first key that exceeds `budget_bytes`
        ends the queue: what comes after it was used even longer ago, or cannot be used without it.
        """
        taken, total = list[str](), 0
        while self._keys:
            size = bytes_of(self._keys[0])
            if size is None:
                self._keys.popleft()
                continue
            if total + size > budget_bytes:
                self._keys.clear()
            elif taken and total + size > SLICE_BYTES:
                break
            else:
                taken.append(self._keys.popleft())
                total += size
        return taken
