"""mlx-lm's key-value caches of one request and of a batch, without copies that change nothing.

A request that comes alone, which is the usual case, is copied three times by mlx-lm before its first token:
into a batch of one, out of the prompts' batch, and to make room for that token. For 1,700 tokens of a small
model that takes longer than computing the token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_lm.models.cache import BatchKVCache, KVCache, make_prompt_cache


class BatchKV(BatchKVCache):
    """Keys and values of several requests, (requests, heads, room in tokens, width)."""

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep these rows; to keep all as they are is no work."""
        if list(batch_indices) != list(range(self.offset.shape[0])) or any(self.left_padding.tolist()):
            super().filter(batch_indices)


class RequestKV(KVCache):
    """Keys and values of one request on its way into a batch."""

    @classmethod
    def merge(cls, caches: Sequence[KVCache]) -> BatchKV:
        """A batch of them; one that comes alone becomes a batch of one as it is, with the room it has."""
        if len(caches) > 1 or caches[0].empty():
            whole = BatchKV.merge(caches)
            return whole if isinstance(whole, BatchKV) else BatchKV([0] * len(caches))  # a bare one if empty
        batch, tokens = BatchKV([0]), caches[0].size()
        batch.state = caches[0].keys, caches[0].values, batch.offset + tokens, batch.left_padding, tokens
        return batch


def empty_caches(model: Any) -> list[Any]:
    """A cache for each layer of a request that begins."""
    return [RequestKV() if type(cache) is KVCache else cache for cache in make_prompt_cache(model)]
