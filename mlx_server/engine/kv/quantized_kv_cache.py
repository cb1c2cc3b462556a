"""Quantized key-value caches, of a request and of a batch.

mlx-lm's own QuantizedKVCache does not support batches: mlx-lm's server runs one request at a time if kv_bits
is set.

Instead of one array, `keys` and `values` are triples of arrays: packed numbers (uint32), scales and biases,
each of shape (rows, heads, tokens, width). The numbers of each token are quantized separately. So how a
prompt is cut into steps, and which other requests are in the batch, affects only the last bits of the numbers
before they are quantized.

mlx-lm's attention expects triples if the cache has an attribute `bits`. It then stores all attention scores.
For one token at a time, this is best, because only the packed numbers are read. For a step of a prompt, it
takes two to three times as long on a CPU as dequantizing a layer's keys and values, and it needs memory for
scores that Metal's kernel does not need. So after a step of a prompt, the cache returns plain arrays. It has
`bits` only while it returns triples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map, tree_reduce
from mlx_lm.models.cache import QuantizedKVCache, dynamic_roll

from mlx_server.engine.kv.kv_cache import BatchKV, write_rows

Triple = tuple[mx.array, mx.array, mx.array]


class QuantizedRequestKV(QuantizedKVCache):
    """Quantized keys and values of one request before it joins a batch.

    `position_offset` is added to the index of each further token to get its position, because an image may
    take more tokens than positions (as in RequestKV).
    """

    position_offset = 0

    def size(self) -> int:
        """Return how many tokens the cache holds."""
        return int(self.offset)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays, including their spare capacity."""
        return 0 if self.keys is None else int(super().nbytes)

    @classmethod
    def merge(cls, caches: Sequence[QuantizedRequestKV]) -> QuantizedBatchKV:
        """Return a batch of `caches`, left-padded to the longest one."""
        return QuantizedBatchKV.merge(caches)


class QuantizedBatchKV(BatchKV):
    """Quantized keys and values of several requests, each a triple of arrays.

    The attributes `offset` (tokens of each row, without its padding), `left_padding`, `_idx` (the column
    after the longest row) and `_right_padding` have the same meaning as in mlx-lm's BatchKVCache.
    """

    keys: Any
    values: Any
    offset: Any
    left_padding: Any
    _idx: int
    _right_padding: Any

    def __init__(self, left_padding: Sequence[int], group_size: int = 64, bits: int = 8) -> None:
        super().__init__(list(left_padding))
        self.group_size, self._bits = group_size, bits
        self._returns_triples = True

    @property
    def bits(self) -> int:
        """Return how many bits each quantized number has. After a step of several tokens, for which
        `update_and_fetch` returns plain arrays, raise AttributeError, so that mlx-lm treats the cache as not
        quantized.
        """
        if not self._returns_triples:
            raise AttributeError("bits")
        return self._bits

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Quantize and append `keys` and `values` of shape (rows, heads, tokens, width). Return all keys and
        all values: each as a triple of packed numbers, scales and biases if one token was appended, and as a
        single dequantized array if several were.
        """
        begin, end = self._idx, self._idx + keys.shape[2]
        new = self._quantized(keys), self._quantized(values)
        if self.keys is None or end > self._capacity_tokens:
            self._grow(new, begin, -(-(end - begin) // self.step) * self.step)
        if self._ends is None:
            for stored, appended in zip((*self.keys, *self.values), (*new[0], *new[1]), strict=True):
                stored[..., begin:end, :] = appended
        else:
            places = self.places_of_next(end - begin)
            self.keys, self.values = tree_map(
                lambda stored, appended: write_rows(stored, appended, places), (self.keys, self.values), new
            )
        self.record_appended(end - begin)
        self._returns_triples = end - begin == 1
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[Any, Any]:
        """Return all stored keys and all stored values. If the last step appended one token, each is a triple
        of packed numbers, scales and biases, and the cache has the attribute `bits`. After a step of several
        tokens, each is a single dequantized array, with which attention is faster or takes less memory for
        such a step.
        """
        keys, values = tree_map(lambda x: x[..., : self._idx, :], (self.keys, self.values))
        return (
            (keys, values) if self._returns_triples else (self._dequantized(keys), self._dequantized(values))
        )

    def finalize(self) -> None:
        """Move each prompt's padding from its right side to its left side."""
        if (padding := self._right_padding) is not None:
            self._map(lambda x: dynamic_roll(x, padding[:, None], axis=2))
            self.offset = self.offset - padding
            self.left_padding += padding
            self._right_padding = None

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep only the rows `batch_indices`, in this order, and drop the left padding that all of them have
        in common.

        Nothing is copied if these are all rows in their present order, and no row has left padding.
        """
        if list(batch_indices) == list(range(self.offset.shape[0])) and not any(self.left_padding.tolist()):
            return
        ends = self.ends()
        self.offset = self.offset[batch_indices]
        self.left_padding = self.left_padding[batch_indices]
        unneeded = max(min(self.left_padding.tolist()), 0)
        self._map(lambda x: x[batch_indices][..., unneeded:, :])
        self.left_padding -= unneeded
        self._set_ends([ends[row] - unneeded for row in batch_indices])

    def extend(self, other: QuantizedBatchKV) -> None:
        """Append the rows of the batch `other`."""
        self._become_union([self, other])

    def extract(self, idx: int) -> QuantizedRequestKV:
        """Return a copy of row `idx`, without its padding."""
        row = QuantizedRequestKV(self.group_size, self._bits)
        if self.keys is not None:
            begin, end = self.left_padding.tolist()[idx], self.ends()[idx]
            row.keys, row.values = tree_map(
                lambda x: mx.contiguous(x[idx : idx + 1, :, begin:end]), (self.keys, self.values)
            )
            row.offset = end - begin
        return row

    def as_request(self) -> QuantizedRequestKV:
        """Return the only row (see `is_alone`) as the cache of one request, which has the same arrays."""
        row = QuantizedRequestKV(self.group_size, self._bits)
        row.keys, row.values, row.offset = self.keys, self.values, self._idx
        return row

    @classmethod
    def merge(cls, caches: Sequence[QuantizedRequestKV]) -> QuantizedBatchKV:
        """Return a batch with a row for each cache. A single cache is not copied."""
        batches = [cls._of_one_row(row) for row in caches]
        if len(batches) > 1:
            batches[0]._become_union(list(batches))
        return batches[0]

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays, including their spare capacity."""
        return 0 if self.keys is None else int(tree_reduce(_add_bytes, (self.keys, self.values), 0))

    @classmethod
    def _of_one_row(cls, row: QuantizedRequestKV) -> QuantizedBatchKV:
        batch = cls([0], row.group_size, row.bits)
        if row.keys is not None:
            batch.keys, batch.values = tuple(row.keys), tuple(row.values)
            batch.offset = batch.offset + (row.offset + row.position_offset)
            batch._idx = row.offset
        return batch

    @property
    def _capacity_tokens(self) -> int:
        """Return how many tokens the arrays can hold."""
        return 0 if self.keys is None else int(self.keys[0].shape[2])

    def _quantized(self, numbers: mx.array) -> Triple:
        packed, scales, biases = mx.quantize(numbers, group_size=self.group_size, bits=self._bits)
        return packed, scales, biases

    def _dequantized(self, triple: Triple) -> mx.array:
        return mx.dequantize(*triple, group_size=self.group_size, bits=self._bits)

    def _grow(self, like: tuple[Triple, Triple], used_tokens: int, more_tokens: int) -> None:
        """Replace the arrays by larger ones, which hold the first `used_tokens` tokens and have room for
        `more_tokens` more. If the batch has no arrays yet, create arrays for `more_tokens` tokens.

        `like` has the keys and values of some tokens. The added room takes its types and, except for the
        number of tokens, its shapes from them.
        """
        zeros = tree_map(lambda x: mx.zeros((*x.shape[:2], more_tokens, x.shape[3]), x.dtype), like)
        if self.keys is None:
            self.keys, self.values = zeros
            return
        used = tree_map(lambda x: x[..., :used_tokens, :], (self.keys, self.values))
        self.keys, self.values = tree_map(lambda x, z: mx.concatenate([x, z], axis=2), used, zeros)

    def _map(self, change: Any) -> None:
        """Replace each stored array by the result of `change` for it."""
        if self.keys is not None:
            self.keys, self.values = tree_map(change, (self.keys, self.values))

    def _become_union(self, batches: Sequence[QuantizedBatchKV]) -> None:
        """Replace the contents by the rows of all `batches`, padded so that all batches end at the same
        column.
        """
        end, capacity = max(b._idx for b in batches), max(b._capacity_tokens for b in batches)
        offset = mx.concatenate([b.offset for b in batches])
        ends = [e + end - b._idx for b in batches for e in b.ends()]
        left_padding = mx.concatenate([b.left_padding + (end - b._idx) for b in batches])
        if like := next(((b.keys, b.values) for b in batches if b.keys is not None), None):
            padded = [b._padded(like, end, capacity) for b in batches]
            self.keys, self.values = tree_map(lambda *rows: mx.concatenate(rows), *padded)
        self.offset, self.left_padding = offset, left_padding
        self._set_ends(ends)

    def _padded(self, like: tuple[Triple, Triple], end: int, capacity: int) -> tuple[Triple, Triple]:
        """Return the keys and values of this batch, moved so that the longest row ends at column `end`, in
        arrays for `capacity` tokens.

        If this batch has no arrays yet, return zeros for its rows. `like` has the keys and values of another
        batch, from which the zeros take the heads, widths and types.
        """
        if self.keys is None:
            rows = self.offset.shape[0]
            return tree_map(lambda x: mx.zeros((rows, x.shape[1], capacity, x.shape[3]), x.dtype), like)
        used = self._idx
        widths = [(0, 0), (0, 0), (end - used, capacity - end), (0, 0)]
        return tree_map(lambda x: mx.pad(x[..., :used, :], widths), (self.keys, self.values))


def _add_bytes(total: int, array: mx.array) -> int:
    return total + array.nbytes
