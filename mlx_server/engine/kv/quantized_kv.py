"""Quantized keys and values in a batch. mlx-lm's own QuantizedKVCache knows no batch: its server works one
request at a time where kv_bits is set.

An array of `keys` or `values` is a triple here: packed numbers (uint32), scales and biases, each
(rows, heads, tokens, width). A token's numbers are quantized by themselves, so how a prompt is cut into steps
and who else is in the batch changes nothing but the last bits of what is quantized.

mlx-lm's attention takes triples where the cache has `bits`, and then writes out all scores. For one token at
a time that is right: only the packed numbers are read. For a step of a prompt it took two to three times as
long on a CPU as making one layer's numbers again does, and needs room for scores where Metal's kernel needs
none. So a prompt's step gets plain arrays, and `bits` are there only while triples are handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map, tree_reduce
from mlx_lm.models.cache import QuantizedKVCache, dynamic_roll

from mlx_server.engine.kv.kv_cache import BatchKV

Triple = tuple[mx.array, mx.array, mx.array]


class QuantizedRequestKV(QuantizedKVCache):
    """Keys and values of one request on its way into a batch."""

    def size(self) -> int:
        return int(self.offset)

    @property
    def nbytes(self) -> int:
        return 0 if self.keys is None else int(super().nbytes)

    @classmethod
    def merge(cls, caches: Sequence[QuantizedRequestKV]) -> QuantizedBatchKV:
        """A batch of them, left-padded to the longest."""
        return QuantizedBatchKV.merge(caches)


class QuantizedBatchKV(BatchKV):
    """Keys and values of several requests, each array a triple."""

    keys: Any
    values: Any
    offset: Any
    left_padding: Any
    _idx: int
    _right_padding: Any

    def __init__(self, left_padding: Sequence[int], group_size: int = 64, bits: int = 8) -> None:
        super().__init__(list(left_padding))
        self.group_size, self._bits = group_size, bits
        self._one_token = True

    @property
    def bits(self) -> int:
        """Raises AttributeError while keys and values are handed out as plain arrays."""
        if not self._one_token:
            raise AttributeError("bits")
        return self._bits

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Takes in keys and values of the next tokens, (rows, heads, tokens, width) as computed."""
        begin, end = self._idx, self._idx + keys.shape[2]
        news = self._quantized(keys), self._quantized(values)
        if self.keys is None or end > self._room:
            self._grow(news, begin, -(-(end - begin) // self.step) * self.step)
        for held, new in zip((*self.keys, *self.values), (*news[0], *news[1]), strict=True):
            held[..., begin:end, :] = new
        self.offset = self.offset + (end - begin)
        self._idx, self._one_token = end, end - begin == 1
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[Any, Any]:
        """Triples, or plain arrays after a step of several tokens."""
        keys, values = tree_map(lambda x: x[..., : self._idx, :], (self.keys, self.values))
        return (keys, values) if self._one_token else (self._plain(keys), self._plain(values))

    def finalize(self) -> None:
        """Padding that stood on the right of this prompt goes to the left."""
        if (padding := self._right_padding) is not None:
            self._map(lambda x: dynamic_roll(x, padding[:, None], axis=2))
            self.offset = self.offset - padding
            self.left_padding += padding
            self._right_padding = None

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keeps these rows only, and no more padding than they need; to keep all as they are is no work."""
        if list(batch_indices) == list(range(self.offset.shape[0])) and not any(self.left_padding.tolist()):
            return
        self.offset = self.offset[batch_indices]
        self.left_padding = self.left_padding[batch_indices]
        spare = max(min(self.left_padding.tolist()), 0)
        self._map(lambda x: x[batch_indices][..., spare:, :])
        self._idx -= spare
        self.left_padding -= spare

    def extend(self, other: QuantizedBatchKV) -> None:
        """Takes in the rows of another batch."""
        self._take([self, other])

    def extract(self, idx: int) -> QuantizedRequestKV:
        """One row, without its padding, in memory of its own."""
        row = QuantizedRequestKV(self.group_size, self._bits)
        if self.keys is not None:
            begin = self.left_padding.tolist()[idx]
            row.keys, row.values = tree_map(
                lambda x: mx.contiguous(x[idx : idx + 1, :, begin : self._idx]), (self.keys, self.values)
            )
            row.offset = self._idx - begin
        return row

    @classmethod
    def merge(cls, caches: Sequence[QuantizedRequestKV]) -> QuantizedBatchKV:
        """A batch of the rows. Of one alone nothing is copied."""
        batches = [cls._of(row) for row in caches]
        if len(batches) > 1:
            batches[0]._take(list(batches))
        return batches[0]

    @property
    def nbytes(self) -> int:
        return 0 if self.keys is None else int(tree_reduce(_add_bytes, (self.keys, self.values), 0))

    @classmethod
    def _of(cls, row: QuantizedRequestKV) -> QuantizedBatchKV:
        batch = cls([0], row.group_size, row.bits)
        if row.keys is not None:
            batch.keys, batch.values = tuple(row.keys), tuple(row.values)
            batch.offset = batch.offset + row.offset
            batch._idx = row.offset
        return batch

    @property
    def _room(self) -> int:
        """How many tokens the arrays have room for."""
        return 0 if self.keys is None else int(self.keys[0].shape[2])

    def _quantized(self, numbers: mx.array) -> Triple:
        packed, scales, biases = mx.quantize(numbers, group_size=self.group_size, bits=self._bits)
        return packed, scales, biases

    def _plain(self, triple: Triple) -> mx.array:
        return mx.dequantize(*triple, group_size=self.group_size, bits=self._bits)

    def _grow(self, like: tuple[Triple, Triple], used: int, more: int) -> None:
        zeros = tree_map(lambda x: mx.zeros((*x.shape[:2], more, x.shape[3]), x.dtype), like)
        if self.keys is None:
            self.keys, self.values = zeros
            return
        held = tree_map(lambda x: x[..., :used, :], (self.keys, self.values))
        self.keys, self.values = tree_map(lambda x, z: mx.concatenate([x, z], axis=2), held, zeros)

    def _map(self, change: Any) -> None:
        if self.keys is not None:
            self.keys, self.values = tree_map(change, (self.keys, self.values))

    def _take(self, batches: Sequence[QuantizedBatchKV]) -> None:
        """Becomes all of `batches`, one under the other, so that their last tokens stand side by side."""
        end, room = max(b._idx for b in batches), max(b._room for b in batches)
        offset = mx.concatenate([b.offset for b in batches])
        left_padding = mx.concatenate([b.left_padding + (end - b._idx) for b in batches])
        if like := next(((b.keys, b.values) for b in batches if b.keys is not None), None):
            placed = [b._placed(like, end, room) for b in batches]
            self.keys, self.values = tree_map(lambda *rows: mx.concatenate(rows), *placed)
        self.offset, self.left_padding, self._idx = offset, left_padding, end

    def _placed(self, like: tuple[Triple, Triple], end: int, room: int) -> tuple[Triple, Triple]:
        """Its keys and values so that they end at `end`, in arrays of `room`."""
        if self.keys is None:
            rows = self.offset.shape[0]
            return tree_map(lambda x: mx.zeros((rows, x.shape[1], room, x.shape[3]), x.dtype), like)
        used = self._idx
        widths = [(0, 0), (0, 0), (end - used, room - end), (0, 0)]
        return tree_map(lambda x: mx.pad(x[..., :used, :], widths), (self.keys, self.values))


def _add_bytes(total: int, array: mx.array) -> int:
    return total + array.nbytes
