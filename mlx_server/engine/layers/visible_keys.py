"""Divide the queries of a prompt into blocks, and find the keys that the queries of each block may
see. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """Some queries of a row of the batch, and the keys that they may see: the queries first…last - 1 see only
    keys among first_key…last_key - 1.

    `hidden`, of shape (queries, keys), is True where a query may not see a key. Its first column belongs to
    the key `first_key + first_hidden`. All queries see those keys of the block that have no column in
    `hidden`. `hidden` is None if all queries see all keys of the block.
    """

    first: int
    last: int
    first_key: int
    last_key: int
    first_hidden: int = 0
    hidden: Mask | None = None


class VisibleKeys:
    """Holds which keys each query of a batch may see. Divides the queries of a row into blocks of consecutive
    queries, so that attention can be computed for one block after another, without the keys that no query of
    the block may see.

    A query may see the keys for which `mask` (rows, queries, keys) is True. If `mask` has only one row, it
    applies to all rows of the batch.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._blocks: dict[tuple[int, int], list[Block]] = {}

    def blocks(self, row: int, at_once: int) -> list[Block]:
        """Divide the queries of one row of the batch into blocks of `at_once` consecutive queries (fewer in
        the last block). Return the blocks. Each of them says which keys its queries may see.
        """
        key = (min(row, len(self._mask) - 1), at_once)
        if key not in self._blocks:
            queries = self._mask.shape[1]
            firsts = range(0, queries, at_once)
            self._blocks[key] = [
                _block(self._mask[key[0]], first, min(first + at_once, queries)) for first in firsts
            ]
        return self._blocks[key]


def _block(mask: Mask, first: int, last: int) -> Block:
    """Return the block of the queries first…last - 1 of one row of the batch: these queries and the keys that
    they may see. `mask` (queries, keys) is True for the keys that each query of the row may see.
    """
    seen = mask[first:last]
    by_any = np.flatnonzero(seen.any(axis=0))
    first_key, last_key = (int(by_any[0]), int(by_any[-1]) + 1) if by_any.size else (0, mask.shape[1])
    hidden = ~seen[:, first_key:last_key]
    from_some = np.flatnonzero(hidden.any(axis=0))
    if not from_some.size:
        return Block(first, last, first_key, last_key)
    begin, end = int(from_some[0]), int(from_some[-1]) + 1
    return Block(first, last, first_key, last_key, begin, hidden[:, begin:end])
