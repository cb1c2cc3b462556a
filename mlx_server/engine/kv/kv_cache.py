"""mlx-lm's key-value caches of a request and of a batch, without superfluous copies.

mlx-lm copies the cache of a request that runs alone, which is the usual case, three times before its first
token: into a batch of one, out of the batch of prompts, and to make room for that token. For 1,700 tokens of
a small model this takes longer than computing the token.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_lm.models.cache import BatchKVCache, KVCache


class BatchKV(BatchKVCache):
    """Keys and values of several requests, of shape (requests, heads, capacity in tokens, width)."""

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep these rows only. Nothing is copied if all rows stay in place and have no padding."""
        if list(batch_indices) != list(range(self.offset.shape[0])) or any(self.left_padding.tolist()):
            super().filter(batch_indices)


class RequestKV(KVCache):
    """Keys and values of one request before it joins a batch."""

    @classmethod
    def merge(cls, caches: Sequence[KVCache]) -> BatchKV:
        """Return a batch of the caches. A single cache is not copied, and its spare capacity is preserved."""
        if len(caches) > 1 or caches[0].empty():
            merged = BatchKV.merge(caches)
            # mlx-lm returns its own class if all caches are empty.
            return merged if isinstance(merged, BatchKV) else BatchKV([0] * len(caches))
        batch, tokens = BatchKV([0]), caches[0].size()
        batch.state = caches[0].keys, caches[0].values, batch.offset + tokens, batch.left_padding, tokens
        return batch
