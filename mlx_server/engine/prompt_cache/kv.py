"""Between MLX's caches and what is kept of them: the only file here that knows MLX, on its thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import ArraysCache, BatchKVCache, CacheList, KVCache, RotatingKVCache

from mlx_server.engine.prompt_cache.block import Array, Block
from mlx_server.engine.prompt_cache.snapshot import Snapshot

_NAMES = {
    **{mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.bool_: "BOOL"},
    **{mx.int8: "I8", mx.int16: "I16", mx.int32: "I32", mx.int64: "I64"},
    **{mx.uint8: "U8", mx.uint16: "U16", mx.uint32: "U32", mx.uint64: "U64"},
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
_RAW = {8: mx.uint64, 4: mx.uint32, 2: mx.uint16, 1: mx.uint8}
_CLASSES = {kind.__name__: kind for kind in (KVCache, RotatingKVCache, ArraysCache, CacheList)}


def can_be_cut(caches: Sequence[Any]) -> bool:
    """Whether what was computed for some tokens can be told apart; in rotating and array caches it cannot."""
    return all(type(cache) is BatchKVCache and cache.keys is not None for cache in caches)


def cut(caches: Sequence[Any], row: int, tokens: Sequence[int], start: int) -> Block:
    """`tokens`, which stand from `start` on in one request of a batch, in memory of its own."""
    left = caches[0].left_padding.tolist()[row]  # the same in all layers
    begin, end = left + start, left + start + len(tokens)
    kinds: dict[tuple[Any, ...], list[mx.array]] = {}
    order: list[int] = []
    for cache in caches:
        for whole in (cache.keys, cache.values):
            part = whole[row, :, begin:end]
            kind = (part.shape[0], part.shape[2], part.dtype)
            kinds.setdefault(kind, []).append(part)
            order.append(list(kinds).index(kind))
    stacks = [_raw(mx.stack(parts)) for parts in kinds.values()]
    mx.eval(stacks)
    names = tuple(_NAMES[dtype] for _, _, dtype in kinds)
    return Block(tuple(tokens), tuple(np.array(stack) for stack in stacks), names, tuple(order))


class _Restored(KVCache):
    """A cache that becomes a batch of one as it is. mlx-lm's own way copies it into zeros first."""

    @classmethod
    def merge(cls, caches: Sequence[KVCache]) -> BatchKVCache:
        if len(caches) > 1:
            return BatchKVCache.merge(caches)
        batch, tokens = BatchKVCache([0]), caches[0].size()
        batch.state = caches[0].keys, caches[0].values, batch.offset + tokens, batch.left_padding, tokens
        return batch


def caches_of(value: Block | Snapshot) -> list[Any]:
    """A cache for each layer that holds the value's tokens."""
    return _from_block(value) if isinstance(value, Block) else _from_snapshot(value)


def _from_block(block: Block) -> list[Any]:
    parts = [iter(group) for group in block.groups]
    arrays = [_array(next(parts[n]), block.dtypes[n])[None] for n in block.order]
    caches = []
    for keys, values in zip(arrays[::2], arrays[1::2], strict=True):
        cache = _Restored()
        cache.state = keys, values, block.tokens
        caches.append(cache)
    return caches


def snapshot(caches: Sequence[Any], row: int, tokens: Sequence[int]) -> Snapshot | None:
    """The whole state of one request of a batch; None where it has none, or one that is not known here."""
    try:
        alone = [cache.extract(row) for cache in caches]
    except (TypeError, AttributeError):  # a layer without state yet, or a cache that cannot be taken apart
        return None
    arrays: list[mx.array] = []
    try:
        tree = [[_class_name(cache), _plain(cache.state, arrays)] for cache in alone]
    except KeyError:
        return None
    raw = [_raw(mx.contiguous(array)) for array in arrays]
    mx.eval(raw)
    names = tuple(_NAMES[array.dtype] for array in arrays)
    return Snapshot(tuple(tokens), tuple(np.array(one) for one in raw), names, json.dumps(tree))


def _from_snapshot(kept: Snapshot) -> list[Any]:
    def array(number: int) -> mx.array:
        return _array(kept.arrays[number], kept.dtypes[number])

    return [_CLASSES[name].from_state(_state(plain, array)) for name, plain in json.loads(kept.tree)]


def _class_name(cache: Any) -> str:
    """Raises KeyError for one that is not known here; so do its parts."""
    name = type(cache).__name__
    if _CLASSES[name] is not type(cache):
        raise KeyError(name)
    for part in getattr(cache, "caches", ()):
        _class_name(part)
    return name


def _plain(state: Any, arrays: list[mx.array]) -> Any:
    """The state as JSON has it, its arrays put aside. Raises KeyError for what JSON does not know."""
    if isinstance(state, mx.array):
        arrays.append(state)
        return {"array": len(arrays) - 1}
    if isinstance(state, (list, tuple)):
        return [_plain(part, arrays) for part in state]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise KeyError(type(state).__name__)


def _state(plain: Any, array: Callable[[int], mx.array]) -> Any:
    if isinstance(plain, dict):
        return array(plain["array"])
    return [_state(part, array) for part in plain] if isinstance(plain, list) else plain


def _raw(array: mx.array) -> mx.array:
    return array.view(_RAW[array.dtype.size])


def _array(raw: Array, dtype: str) -> mx.array:
    return mx.array(raw).view(_TYPES[dtype])
