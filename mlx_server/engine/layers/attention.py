"""Compute attention for batches whose keys are in groups, and by the fastest function for the device."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import scaled_dot_product_attention

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.kv.grouped_kv import Grouped, GroupedKV
from mlx_server.engine.layers import attention_in_blocks
from mlx_server.engine.layers.replaced_functions import replace_function

ATTENTION = "scaled_dot_product_attention"
"""The name under which mlx-lm's models import the function that computes attention."""


def replace_attention(model: nn.Module) -> None:
    """Make the layers of `model` compute attention by this module's `attention` instead of mlx-lm's function
    (see `replace_function`).
    """
    replace_function(model, ATTENTION, scaled_dot_product_attention, attention)


def attention(
    queries: mx.array,
    keys: Any,
    values: Any,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """Compute the same result as mlx-lm's `scaled_dot_product_attention`.

    `keys`, `values` and `mask` may be Grouped if `cache` is a GroupedKV; then attention is computed for one
    group of rows after the other. On a CPU, it is computed in blocks.
    """
    # MLX has fused kernels for attention only on a GPU.
    compute: Any = scaled_dot_product_attention if computes_on_gpu() else attention_in_blocks.attention
    if not isinstance(keys, Grouped):
        if isinstance(cache, GroupedKV):  # with one group
            (cache,) = cache.groups
        out: mx.array = compute(queries, keys, values, cache, scale, mask, sinks)
        return out
    by_group = zip(cache.with_rows(), keys.parts, values.parts, mask.parts, strict=True)
    return mx.concatenate(
        [
            compute(queries[rows], own_keys, own_values, group, scale, own_mask, sinks)
            for (group, rows), own_keys, own_values, own_mask in by_group
        ]
    )
