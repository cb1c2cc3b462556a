"""Compute the attention of prompts in blocks on a CPU, with numpy's exponential.

MLX has fused kernels for attention only on a GPU. On a CPU, its builds for Linux compute the softmax one
number at a time, and first store the scores of all queries with all keys. Measured in one layer with nine
heads, with one thread: 16 tokens of a prompt attend to 6,000 tokens in 31 ms with MLX, and in 10 ms here; 512
tokens in 776 ms with MLX, and in 280 ms here. Attention took most of the time of a long prompt.

A block consists of the queries of some consecutive tokens in the heads that share keys. One product computes
its scores, which are few enough to stay in the processor's cache. Keys that no query of the block may see are
left out, which in a prompt without a cached beginning are half of the keys.

Steps of answers have only one query for each request. MLX computes them in the background, while a call of
numpy would wait for the step before. So their attention is computed by MLX's operations, but with the softmax
of `fast_exponential`, and with one product for the heads that share keys: 16 answers attend to 300 tokens in
0.8 ms in place of 1.6.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.base import scaled_dot_product_attention
from numpy.typing import NDArray

from mlx_server.engine.fast_exponential import softmax
from mlx_server.engine.kv.groups_to_join import MOST_GROUPS
from mlx_server.engine.layers.visible_keys import Block, VisibleKeys
from mlx_server.engine.pausable_call import is_pausable, pause_point
from mlx_server.memory_forecast.forecast import SCORES_IN_BLOCK

FEWEST_SCORES = 8192
"""With fewer scores of a row in all heads, a call of numpy for each row and layer gains nothing. Measured on
two cores with AVX-512: two tokens beside 1,024 in the cache take 28 ms in place of 34, four beside 512 take
30 in place of 35; beside 256, in eight rows, two tokens would take 70 ms in place of 64."""
FEWEST_SCORES_OF_A_STEP = 4096
"""With fewer scores in all heads and rows, MLX's attention of single queries is as fast."""
_HIDDEN = np.finfo(np.float32).min
"""The score of a hidden key, as in MLX. It is finite, so that the weights of a query without any visible key
are finite, too."""

Floats = NDArray[np.float32]


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """Compute the same result as mlx-lm's `scaled_dot_product_attention`: several queries of a row in blocks,
    and a single one with a faster softmax. If there are few scores, or the arguments do not allow this, call
    mlx-lm's function.

    `queries` has the shape (rows, heads, queries, width). `keys` and `values` may have fewer heads.
    """
    is_plain = not hasattr(cache, "bits") and all(x.dtype == mx.float32 for x in (queries, keys, values))
    if is_plain and queries.shape[2] == 1:
        if sinks is None and _is_large_step(queries, keys) and _hides_keys(mask):
            return _attend_with_one_query(queries * scale, keys, values, mask)
    elif is_plain and _is_large(queries, keys):
        visible = _visible(mask, queries.shape[2], keys.shape[2])
        if visible is not None:
            return _attend_in_blocks(queries * scale, keys, values, sinks, visible)
    out: mx.array = scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)
    if queries.shape[2] > 1 and is_pausable():
        mx.eval(out)
        pause_point()
    return out


def _is_large(q: mx.array, k: mx.array) -> bool:
    """Return whether computing in blocks is faster, because there are many scores."""
    return q.shape[1] * q.shape[2] * k.shape[2] >= FEWEST_SCORES


def _is_large_step(q: mx.array, k: mx.array) -> bool:
    """Return whether `_attend_with_one_query` is faster than MLX, because there are many scores."""
    return q.shape[0] * q.shape[1] * k.shape[2] >= FEWEST_SCORES_OF_A_STEP


def _hides_keys(mask: Any) -> bool:
    """Return whether `mask`, of a step with one query for each request, only hides keys and adds nothing to
    scores, and hides the same keys in all heads.
    """
    if mask is None or isinstance(mask, str):
        return True
    return bool(mask.dtype == mx.bool_ and (mask.ndim < 3 or mask.shape[-3] == 1))


def _attend_with_one_query(q: mx.array, k: mx.array, v: mx.array, mask: Any) -> mx.array:
    """Return the output of attention of one query in each row, of shape (rows, heads, 1, width of the
    values). The queries `q` are already scaled. A `mask` that is an array is True where a key is visible.
    """
    rows, heads, _, width = q.shape
    groups = k.shape[1]
    scores = q.reshape(rows, groups, heads // groups, width) @ k.swapaxes(2, 3)
    if isinstance(mask, mx.array):
        scores = mx.where(mask, scores, float(_HIDDEN))
    return (softmax(scores) @ v).reshape(rows, heads, 1, v.shape[3])


def _attend_in_blocks(
    q: mx.array, k: mx.array, v: mx.array, sinks: mx.array | None, visible: VisibleKeys
) -> mx.array:
    """Return the output of attention, of shape (rows, heads, queries, width of the values).

    The queries `q` (rows, heads, queries, width) are already scaled. The heads form groups, each of which
    shares keys `k` and values `v` (rows, groups, keys, width). `sinks` has the score of each head's attention
    sink; None if there are none. `visible` says which keys each query may see.

    The scores are computed in blocks. A block has the queries of consecutive tokens of one row, in the heads
    of one group, or of several groups if all their scores for the row fit into one block. A block has at most
    SCORES_IN_BLOCK scores, unless those of a single token in one group are more.
    """
    rows, heads, queries, width = q.shape
    groups, of_group = k.shape[1], heads // k.shape[1]
    q = q.reshape(rows, groups, of_group, queries, width)
    sink = None if sinks is None else np.array(sinks).reshape(groups, of_group)
    at_once = max(min(SCORES_IN_BLOCK // (of_group * queries * k.shape[2]), groups), 1)
    out = []
    for row in range(rows):
        blocks = visible.blocks(row, max(SCORES_IN_BLOCK // (of_group * k.shape[2]), 1))
        for first in range(0, groups, at_once):
            some = slice(first, first + at_once)
            one = q[row, some], k[row, some], v[row, some], None if sink is None else sink[some]
            parts = [_attend(*one, block) for block in blocks]
            out.append(parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2))
    return mx.concatenate(out).reshape(rows, heads, queries, v.shape[3])


@np.errstate(all="ignore")  # infinite numbers and NaN, from damaged weights, are found in the results
def _attend(q: mx.array, k: mx.array, v: mx.array, sinks: Floats | None, block: Block) -> mx.array:
    """Return the output of attention for the queries of `block`, of shape (groups, heads of a group, queries
    of the block, width of the values). `block` says which queries these are, and which keys each may see.

    The heads of a group share keys and values. `q` has all queries of one row of the batch, already scaled,
    of shape (groups, heads of a group, queries, width). `k` and `v` have all keys and values of the row, of
    shape (groups, keys, width). `sinks` has the score of each head's attention sink, of shape (groups, heads
    of a group); None if there are none.
    """
    keys, is_whole = slice(block.first_key, block.last_key), q.shape[2] == block.last - block.first
    groups, heads, queries, width = (q := q[:, :, block.first : block.last]).shape
    scores = q.reshape(groups, heads * queries, width) @ k[:, keys].swapaxes(1, 2)
    mx.eval(scores)
    pause_point()
    weights = np.array(scores, copy=False)  # the same memory
    if block.hidden is not None:
        end = block.first_hidden + block.hidden.shape[1]
        partly = weights.reshape(groups, heads, queries, -1)[..., block.first_hidden : end]
        np.copyto(partly, _HIDDEN, where=block.hidden)
    highest = weights.max(axis=-1, keepdims=True)
    if sinks is not None:
        of_queries = sinks.repeat(queries, axis=1)[..., None]
        highest = np.maximum(highest, of_queries)
    weights -= highest
    np.exp(weights, out=weights)
    sums = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        sums += np.exp(of_queries - highest)
    out = (scores @ v[:, keys]) / mx.array(sums)
    if not is_whole:
        mx.eval(out)  # so that the scores of one block at a time are in memory
    return out.reshape(groups, heads, queries, v.shape[2])


_recent: deque[tuple[Any, tuple[int, int], VisibleKeys]] = deque(maxlen=MOST_GROUPS)
"""The masks for which `_visible` was called last, the numbers of queries and keys, and the results. The
results are cached because all layers of a step have the same masks, one for each group of rows. Only the MLX
thread uses this."""
_MOST_CACHED = 1 << 22
"""The masks in `_recent` have at most this many elements together, unless the last one alone has more. Those
of a long prompt take 50 MB each."""


def _visible(mask: Any, queries: int, keys: int) -> VisibleKeys | None:
    """Return which keys the queries may see; None if the mask does more than hide keys (it is added to the
    scores), or differs between heads.
    """
    for known, numbers, visible in _recent:
        if known is mask and numbers == (queries, keys):
            return visible
    if mask is None:
        seen = np.ones((1, 1, keys), np.bool_)
    elif isinstance(mask, str):  # "causal": keys up to the query's position; the last query sees all keys
        seen = np.tri(queries, keys, keys - queries, dtype=np.bool_)[None]
    else:
        shape = (1,) * (4 - mask.ndim) + tuple(mask.shape)
        if mask.dtype != mx.bool_ or shape[1] != 1:
            return None
        seen = np.array(mask).reshape(shape)[:, 0]
    visible = VisibleKeys(np.broadcast_to(seen, (seen.shape[0], queries, keys)))
    _recent.append((mask, (queries, keys), visible))
    while len(_recent) > 1 and sum(math.prod(numbers) for _, numbers, _ in _recent) > _MOST_CACHED:
        _recent.popleft()
    return visible
