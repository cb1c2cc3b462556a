"""The key-value cache of running answers, whose rows are in groups of similar length.

In one array, every row is as long as the longest one: while a request with 6,000 tokens runs, each short one
also takes the memory of 6,000 tokens and attends to all of them, and the whole array is copied whenever a
request joins or leaves. So rows of very different lengths are in different arrays. The products with the
weights, which are most of a step, are still computed for all rows together; only attention is computed for
each group.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_server.engine.kv.groups_to_join import pair_to_join
from mlx_server.engine.kv.kv_cache import BatchKV


@dataclass(frozen=True)
class Grouped:
    """Keys, values or masks of a batch in groups of rows: one element of `parts` for each group.

    A model can only pass such an object on to `layers/attention.py`; any other use raises an exception.
    """

    parts: Sequence[Any]


class GroupedKV:
    """Keys and values of several requests, in groups of consecutive rows. Each group is a BatchKV.

    `offset` holds the position of the next token of each row, as in mlx-lm's caches.
    """

    def __init__(self, groups: Sequence[BatchKV]) -> None:
        self.groups = list(groups)
        self.offset: Any = self._offsets_of_groups()

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Append `keys` and `values` of shape (rows, heads, tokens, width). Return all keys and all values,
        each as a Grouped unless there is only one group.
        """
        all_keys, all_values = [], []
        for group, rows in self.with_rows():
            # Of a single group, a slice would be one operation more in each layer.
            own = (keys, values) if len(self.groups) == 1 else (keys[rows], values[rows])
            fetched = group.update_and_fetch(*own)
            all_keys.append(fetched[0])
            all_values.append(fetched[1])
        self._set_offset(self.offset + keys.shape[2])
        return _grouped(all_keys), _grouped(all_values)

    def make_mask(self, N: int, return_array: bool = False, **options: Any) -> Any:
        """Return a mask of the tokens that each of the next `N` tokens of each row may attend to, as a
        Grouped unless there is only one group.
        """
        return _grouped([group.make_mask(N, return_array=return_array, **options) for group in self.groups])

    def drop_last(self, tokens: Sequence[int]) -> None:
        """Drop the last tokens of each row. `tokens` holds how many, for each row."""
        for group, rows in self.with_rows():
            group.drop_last(tokens[rows])
        self._set_offset(self._offsets_of_groups())

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep only the rows `batch_indices`, which must be in ascending order. Of groups whose rows all stay
        or all go, nothing is copied.
        """
        kept = []
        for group, rows in self.with_rows():
            own = [row - rows.start for row in batch_indices if rows.start <= row < rows.stop]
            if own and len(own) < _rows(group):
                group.filter(own)
            if own:
                kept.append(group)
        self.groups = kept
        self._set_offset(self._offsets_of_groups())

    def extend(self, other: BatchKV | GroupedKV) -> None:
        """Append the rows of the batch `other`. Only short groups are copied into one (`pair_to_join`)."""
        self.groups += other.groups if isinstance(other, GroupedKV) else [other]
        while (first := pair_to_join([(_rows(group), group._idx) for group in self.groups])) is not None:
            self.groups[first].extend(self.groups.pop(first + 1))
        self._set_offset(self._offsets_of_groups())

    def extract(self, idx: int) -> Any:
        """Return a copy of row `idx` as the cache of one request."""
        group, row = self.locate(idx)
        return group.extract(row)

    def locate(self, idx: int) -> tuple[BatchKV, int]:
        """Return the group that has row `idx`, and the row's index in it. Raises IndexError if there is no
        such row.
        """
        for group, rows in self.with_rows():
            if rows.start <= idx < rows.stop:
                return group, idx - rows.start
        raise IndexError(f"The cache has no row {idx}.")

    @property
    def state(self) -> list[Any]:
        """Return all arrays of all groups, for `mx.eval`."""
        return [self.offset, *(group.state for group in self.groups)]

    @property
    def nbytes(self) -> int:
        """Return the bytes of all groups, including their spare capacity."""
        return sum(int(group.nbytes) for group in self.groups)

    def with_rows(self) -> list[tuple[BatchKV, slice]]:
        """Return each group and the range of its rows."""
        ends = list(itertools.accumulate(_rows(group) for group in self.groups))
        return [(group, slice(end - _rows(group), end)) for group, end in zip(self.groups, ends, strict=True)]

    def _offsets_of_groups(self) -> Any:
        offsets = [group.offset for group in self.groups]
        return offsets[0] if len(offsets) == 1 else mx.concatenate(offsets)

    def _set_offset(self, offset: Any) -> None:
        """Set the positions of all rows, also in the groups. Otherwise each group would add to its own array
        of positions in each step. Nobody evaluates these arrays, so MLX's graph of operations to compute
        would grow.
        """
        self.offset = offset
        for group, rows in self.with_rows():
            group.offset = offset if len(self.groups) == 1 else offset[rows]


def as_groups(caches: Sequence[Any]) -> list[Any]:
    """Convert the caches of all layers of a batch to GroupedKVs with one group."""
    return [GroupedKV([cache]) if isinstance(cache, BatchKV) else cache for cache in caches]


def share_offsets(caches: Sequence[Any]) -> None:
    """Make the caches of all layers of a batch refer to the same array object of token positions, so that
    layers can recognize equal positions without comparing arrays. If a cache is neither a BatchKV nor a
    GroupedKV, do nothing.
    """
    if all(type(cache) in (BatchKV, GroupedKV) for cache in caches):
        for cache in caches[1:]:
            cache.offset = caches[0].offset


def _rows(group: BatchKV) -> int:
    return int(group.offset.shape[0])


def _grouped(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else Grouped(parts)
