"""Between MLX's caches and blocks. Lives in the MLX thread; the only file here that knows MLX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import BatchKVCache, KVCache

from mlx_server.engine.prompt_cache.block import Block

_NAMES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16"}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
_RAW = {4: mx.uint32, 2: mx.uint16}


def can_be_cut(caches: Sequence[Any]) -> bool:
    """Whether what was computed for some tokens can be told apart; in rotating and array caches it cannot."""
    return all(type(cache) in (KVCache, BatchKVCache) for cache in caches)


def cut(caches: Sequence[Any], row: int, tokens: Sequence[int], start: int) -> Block:
    """`tokens`, which stand from `start` on in one request of a batch, in memory of its own."""
    end = start + len(tokens)
    kinds: dict[tuple[Any, ...], list[mx.array]] = {}
    order: list[int] = []
    left = caches[0].left_padding.tolist()[row]  # the same in all layers
    for cache in caches:
        for whole in (cache.keys, cache.values):
            part = whole[row, :, left + start : left + end]
            kind = (part.shape[0], part.shape[2], part.dtype)
            kinds.setdefault(kind, []).append(part)
            order.append(list(kinds).index(kind))
    stacks = [mx.stack(parts).view(_RAW[parts[0].dtype.size]) for parts in kinds.values()]
    mx.eval(stacks)
    names = tuple(_NAMES[dtype] for _, _, dtype in kinds)
    return Block(tuple(tokens), tuple(np.array(stack) for stack in stacks), names, tuple(order))


def caches_of(block: Block) -> list[KVCache]:
    """A cache for each layer that holds the block's tokens."""
    parts = [iter(group) for group in block.groups]
    arrays = [mx.array(next(parts[n])).view(_TYPES[block.dtypes[n]])[None] for n in block.order]
    caches = []
    for keys, values in zip(arrays[::2], arrays[1::2], strict=True):
        cache = KVCache()
        cache.state = keys, values, block.tokens
        caches.append(cache)
    return caches
