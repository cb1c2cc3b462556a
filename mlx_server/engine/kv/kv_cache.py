"""mlx-lm's key-value caches of a request and of a batch, without superfluous copies.

mlx-lm copies the cache of a request that runs alone, which is the usual case, three times before the
request's first token: into a batch of one, out of the batch of prompts, and to make room for that token. For
1,700 tokens of a small model, this takes longer than computing the token. The classes in this module avoid
these copies.

They also let the rows of a batch end at different columns, while mlx-lm's caches need a common end. In a step
that verifies drafts, each row computes the same number of tokens, and then keeps only the accepted ones. With
mlx-lm's caches, each such step would copy all keys and values to align the rows' ends again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache


class BatchKV(BatchKVCache):
    """Keys and values of several requests, of shape (requests, heads, capacity in tokens, width).

    The tokens of a row begin after its left padding. All rows end at column `_idx`, unless `_ends` has the
    end of each row; `_idx` is then the end of the longest row.
    """

    keys: Any
    values: Any
    offset: Any
    _ends: list[int] | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append `keys` and `values` of shape (rows, heads, tokens, width), and return all keys and
        values.
        """
        if self._ends is None:
            fetched: tuple[mx.array, mx.array] = super().update_and_fetch(keys, values)
            return fetched
        width = keys.shape[2]
        places = self.places_of_next(width)
        missing = self._idx + width - self.keys.shape[2]
        if missing > 0:
            more = -(-missing // self.step) * self.step
            self.keys, self.values = (
                mx.concatenate([x, mx.zeros((*x.shape[:2], more, x.shape[3]), x.dtype)], axis=2)
                for x in (self.keys, self.values)
            )
        self.keys = write_rows(self.keys, keys, places)
        self.values = write_rows(self.values, values, places)
        self.record_appended(width)
        return self.keys_and_values()

    def make_mask(self, N: int, return_array: bool = False, **options: Any) -> Any:
        """Return a mask of the tokens that each of the next `N` tokens of each row may attend to, as mlx-lm's
        method does.
        """
        if self._ends is None:
            return super().make_mask(N, return_array=return_array, **options)
        columns = mx.arange(self._idx + N)
        own = (mx.array(self._ends)[:, None] + mx.arange(N))[:, None, :, None]
        mask = (columns <= own) & (columns >= mx.expand_dims(self.left_padding, (1, 2, 3)))
        if (window := options.get("window_size")) is not None:
            mask = mask & (columns > own - window)
        return mask

    def drop_last(self, tokens: Sequence[int]) -> None:
        """Drop the last tokens of each row. `tokens` holds how many, for each row."""
        ends = [end - dropped for end, dropped in zip(self.ends(), tokens, strict=True)]
        self.offset = self.offset - mx.array(list(tokens))
        self._set_ends(ends)

    def ends(self) -> list[int]:
        """Return the column after the last token of each row."""
        return [self._idx] * self.offset.shape[0] if self._ends is None else self._ends

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep only the rows `batch_indices`, in this order, and drop the left padding that all of them have
        in common. Nothing is copied if these are all rows in their present order, and no row has left
        padding.
        """
        if list(batch_indices) == list(range(self.offset.shape[0])) and not any(self.left_padding.tolist()):
            return
        ends, end_before = [self.ends()[row] for row in batch_indices], self._idx
        super().filter(batch_indices)
        self._set_ends([end - (end_before - self._idx) for end in ends])

    def extend(self, other: BatchKV) -> None:
        """Append the rows of the batch `other`."""
        end = max(self._idx, other._idx)
        ends = [e + end - batch._idx for batch in (self, other) for e in batch.ends()]
        super().extend(other)
        self._set_ends(ends)

    def extract(self, idx: int) -> Any:
        """Return a copy of row `idx`, without its padding."""
        row = as_request_kv(super().extract(idx))
        if unused := self._idx - self.ends()[idx]:
            row.trim(unused)
        return row

    @property
    def is_alone(self) -> bool:
        """Return whether the batch has only one row, without padding."""
        return self.keys is not None and self.left_padding.tolist() == [0]

    def as_request(self) -> Any:
        """Return the only row (see `is_alone`) as the cache of one request, which has the same arrays."""
        return RequestKV.from_state((self.keys, self.values, self._idx))

    def places_of_next(self, width: int) -> mx.array:
        """Return the columns of the next `width` tokens of each row, of shape (rows, width)."""
        return mx.array(self.ends())[:, None] + mx.arange(width)

    def record_appended(self, width: int) -> None:
        """Record that `width` tokens have been appended to each row."""
        self.offset = self.offset + width
        self._set_ends([end + width for end in self.ends()])

    def _set_ends(self, ends: list[int]) -> None:
        if ends:
            self._idx = max(ends)
        self._ends = None if all(end == self._idx for end in ends) else ends


def write_rows(stored: mx.array, new: mx.array, places: mx.array) -> mx.array:
    """Return `stored`, of shape (rows, heads, capacity, width), with `new` written into each row.

    `new` has the shape (rows, heads, tokens, width). `places`, of shape (rows, tokens), holds the column of
    each token.
    """
    return mx.put_along_axis(stored, places[:, None, :, None], new, axis=2)


class RequestKV(KVCache):
    """Keys and values of one request before it joins a batch.

    `position_offset` is added to the index of each further token to get its position, because an image may
    take more tokens than positions.
    """

    position_offset = 0

    @classmethod
    def merge(cls, caches: Sequence[KVCache]) -> BatchKV:
        """Return a batch of `caches`. A single cache is not copied, and its spare capacity is preserved."""
        if len(caches) > 1 or caches[0].empty():
            merged = BatchKV.merge(caches)
            # mlx-lm returns its own class if all caches are empty.
            batch = merged if isinstance(merged, BatchKV) else BatchKV([0] * len(caches))
        else:
            batch, tokens = BatchKV([0]), caches[0].size()
            batch.state = caches[0].keys, caches[0].values, batch.offset + tokens, batch.left_padding, tokens
        offsets = [getattr(cache, "position_offset", 0) for cache in caches]
        if any(offsets):
            batch.offset = batch.offset + mx.array(offsets)
        return batch


def as_request_kv(cache: Any) -> Any:
    """Convert mlx-lm's KVCache to a RequestKV, and return any other cache unchanged. Caches of both classes
    cannot be in one batch, so each cache that may come from mlx-lm's own code is converted.
    """
    return RequestKV.from_state(cache.state) if type(cache) is KVCache else cache
