"""Choose the blocks that are read from disk into RAM before a request needs them. Pure.

An engine that has just started has nothing in RAM. Its first request with a known prompt would wait until the
prompt's blocks are read, which takes longer than computing a token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, parent_of

RAM_SHARE = 0.5
"""The share of the RAM tier that may be filled in advance."""

SLICE_BYTES = 32 << 20
"""The most bytes read at once, which takes some 40 ms. A request that arrives meanwhile shares the processor
with the reading for that time."""

MOST_BLOCKS = 4096
"""How many of the newest blocks of all models are considered. Considering more would delay the first request.
"""


def newest_of(prefixes: PrefixKeys, newest: Iterable[str]) -> list[str]:
    """Return those of the first MOST_BLOCKS keys in `newest` that belong to one model, in the same order.
    `newest` has the keys of the blocks and snapshots of all models, the most recently used first. `prefixes`
    computes the keys of the one model.

    A block is left out if the block before it in its prompt is not among the MOST_BLOCKS keys, since it
    cannot be used then.
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


def newest_chain(prefixes: PrefixKeys, newest: Iterable[str]) -> list[str]:
    """Return the keys of the consecutive blocks of one prompt, from its first block on. Where several blocks
    follow the same one, the prompt continues with the most recently used of them.

    `newest` has the keys of a model's blocks and snapshots, the most recently used first. `prefixes` computes
    the model's keys.
    """
    following: dict[str, str] = {}
    for key in newest:
        following.setdefault(parent_of(key), key)
    chain, parent = list[str](), as_parent(prefixes.root)
    while (key := following.pop(parent, "")) != "":
        chain.append(key)
        parent = as_parent(key)
    return chain


class PreloadQueue:
    """The keys of one model's blocks and snapshots that have yet to be read from disk into RAM, in the order
    in which they will be read. At first, the queue contains `keys`. `is_cut` is True once keys have been
    dropped because they exceeded the budget.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = deque(keys)
        self.is_cut = False

    def take(self, bytes_of: Callable[[str], int | None], budget_bytes: int) -> list[str]:
        """Remove the next keys from the queue and return them. `bytes_of` returns the size of a key's file in
        bytes, or None if the key need not be read; such a key is removed, but not returned.

        The files of the returned keys together have at most SLICE_BYTES; the keys of further files stay in
        the queue for the next call. A first file that alone is larger than SLICE_BYTES is returned by itself.

        The files together also have at most `budget_bytes`. If the next file would exceed this budget, its
        key and all later keys are dropped, and `is_cut` becomes True: later keys were used even longer ago,
        or cannot be used without the next key.
        """
        taken, total = list[str](), 0
        while self._keys:
            size = bytes_of(self._keys[0])
            if size is None:
                self._keys.popleft()
                continue
            if total + size > budget_bytes:
                self._keys.clear()
                self.is_cut = True
            elif taken and total + size > SLICE_BYTES:
                break
            else:
                taken.append(self._keys.popleft())
                total += size
        return taken
