"""Convert between MLX's caches and blocks or snapshots, on the MLX thread. No other file of this package uses
MLX.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, BatchKVCache, CacheList, KVCache, RotatingKVCache

from mlx_server.engine.kv.kv_cache import RequestKV
from mlx_server.engine.kv.quantized_kv_cache import QuantizedRequestKV
from mlx_server.engine.prompt_cache.block import Array, Block, BlockRun, block_of
from mlx_server.engine.prompt_cache.snapshot import Snapshot
from mlx_server.memory_forecast.kv_quantization import KvQuantization

_NAMES = {
    **{mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.bool_: "BOOL"},
    **{mx.int8: "I8", mx.int16: "I16", mx.int32: "I32", mx.int64: "I64"},
    **{mx.uint8: "U8", mx.uint16: "U16", mx.uint32: "U32", mx.uint64: "U64"},
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
_RAW = {8: mx.uint64, 4: mx.uint32, 2: mx.uint16, 1: mx.uint8}
_KINDS = (RotatingKVCache, ArraysCache, CacheList, QuantizedRequestKV)
_CLASSES = {"KVCache": RequestKV, **{kind.__name__: kind for kind in _KINDS}}
"""The classes of a request's caches by their names in snapshots. They are the classes that a new request gets
(`make_request_caches`), because a restored request must be able to join a batch with new ones. Only inside a
CacheList, which mlx-lm restores, a KVCache is mlx-lm's own, for new and restored requests alike.
"""
_CLASS_NAMES = {kind: name for name, kind in _CLASSES.items()} | {KVCache: "KVCache"}

ROOM_TOKENS = 256
"""The spare capacity of restored arrays, in tokens. Without spare capacity, all arrays would be copied to
append the first new token.
"""


def can_be_cut(caches: Sequence[Any]) -> bool:
    """Return True if the caches can be cut into blocks of tokens. Rotating caches and caches of state arrays
    cannot.
    """
    return all(isinstance(cache, BatchKVCache) and cache.keys is not None for cache in caches)


def cut(caches: Sequence[Any], row: int, tokens: Sequence[int], start: int, size: int) -> list[Block]:
    """Copy the keys and values of `tokens` from a batch into blocks of `size` tokens, and return the blocks.
    The last block is shorter if the number of tokens is not a multiple of `size`. `caches` are the batch's
    caches, one for each layer. `tokens` begin at position `start` of the sequence in row `row`.

    The data is copied only once, from MLX's memory to the blocks.
    """
    begin = caches[0].left_padding.tolist()[row] + start  # the same in all layers
    arrays = [array for cache in caches for array in _arrays(cache)]
    parts = [whole[row, :, begin : begin + len(tokens)] for whole in _numpy_views(arrays)]
    dtypes = [_NAMES[array.dtype] for array in arrays]
    return [
        block_of(tokens[at : at + size], [part[:, at : at + size] for part in parts], dtypes)
        for at in range(0, len(tokens), size)
    ]


def _arrays(cache: Any) -> list[mx.array]:
    """Return the arrays of a layer's keys and values: one for each, or three for each if they are
    quantized.
    """
    return [array for _, array in tree_flatten((cache.keys, cache.values))]


def caches_of(value: BlockRun | Snapshot, kv: KvQuantization | None) -> list[Any]:
    """Return a cache for each of the model's layers with the keys and values in `value`, which were stored
    with the setting `kv`.
    """
    if isinstance(value, BlockRun):
        return caches_of_run(value, concatenated(value), kv)
    return _from_snapshot(value)


def caches_of_run(run: BlockRun, raw: Sequence[mx.array], kv: KvQuantization | None) -> list[Any]:
    """Return a cache for each of the model's layers with the keys and values of `run`, which were stored with
    the setting `kv`. `raw` is what `concatenated` has returned for `run`.
    """
    first, total = run.blocks[0], run.tokens
    names = [first.dtypes[number] for number in first.order]
    arrays = [array.view(_TYPES[name]) for array, name in zip(raw, names, strict=True)]
    if kv is None:
        return [RequestKV.from_state((*pair, total)) for pair in zip(arrays[::2], arrays[1::2], strict=True)]
    triples = list(zip(arrays[::3], arrays[1::3], arrays[2::3], strict=True))
    pairs = zip(triples[::2], triples[1::2], strict=True)
    return [QuantizedRequestKV.from_state((*pair, total, kv.group_size, kv.bits)) for pair in pairs]


def concatenated(run: BlockRun) -> list[mx.array]:
    """Return each layer's keys and values of all blocks, with room for ROOM_TOKENS more tokens, as unsigned
    integers with the same bytes. Any thread may call this: arrays are only filled, and nothing is computed.

    The blocks are concatenated in plain memory, which is reused for each array so that it stays in the
    processor's cache, and then copied to MLX. This takes half the time of filling zeroed MLX arrays in place.
    """
    total = run.tokens
    buffers: dict[tuple[object, ...], Array] = {}
    arrays = []
    for parts in zip(*(block.parts() for block in run.blocks), strict=True):
        heads, _, width = parts[0].shape
        kind = heads, width, parts[0].dtype
        if kind not in buffers:
            buffers[kind] = np.zeros((1, heads, total + ROOM_TOKENS, width), parts[0].dtype)
        np.concatenate(parts, axis=1, out=buffers[kind][0, :, :total])
        arrays.append(mx.array(buffers[kind]))
    return arrays


def snapshot(caches: Sequence[Any], row: int, tokens: Sequence[int]) -> Snapshot | None:
    """Return a copy of the whole state of the request in row `row` of a batch. `caches` are the batch's
    caches, one for each layer, and `tokens` are the tokens that the request has processed.

    Return None if a layer has no state yet, if one row cannot be extracted from a cache, or if a cache or a
    value in it has an unknown class.
    """
    try:
        alone = [cache.extract(row) for cache in caches]
    except (TypeError, AttributeError):  # a layer without state yet, or a cache that cannot extract one row
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


def _from_snapshot(stored: Snapshot) -> list[Any]:
    def array(number: int) -> mx.array:
        return _array(stored.arrays[number], stored.dtypes[number])

    return [_CLASSES[name].from_state(_state(plain, array)) for name, plain in json.loads(stored.tree)]


def _class_name(cache: Any) -> str:
    """Return the name of the cache's class in snapshots. Raises KeyError if the class of the cache, or of one
    of its parts, is unknown.
    """
    name = _CLASS_NAMES[type(cache)]
    for part in getattr(cache, "caches", ()):
        _class_name(part)
    return name


def _plain(state: Any, arrays: list[mx.array]) -> Any:
    """Convert the state of a cache to JSON values. Each MLX array in it is appended to `arrays`, and is
    represented by the object `{"array": N}`, where N is its index there. Raises KeyError if the state
    contains a value that is neither an array nor a list, a tuple, a number, a string, a boolean or None.
    """
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


def _numpy_views(arrays: Sequence[mx.array]) -> list[Array]:
    """Return the raw numbers of `arrays` as numpy views of MLX's memory.

    The caller must release the views before the next step, since MLX cannot write to an array in place while
    a view of it exists.
    """
    raw = [_raw(array) for array in arrays]
    mx.eval(raw)
    return [np.asarray(one) for one in raw]


def _raw(array: mx.array) -> mx.array:
    return array.view(_RAW[array.dtype.size])


def _array(raw: Array, dtype: str) -> mx.array:
    return mx.array(raw).view(_TYPES[dtype])
