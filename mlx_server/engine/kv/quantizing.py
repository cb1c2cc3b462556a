"""Quantized caches for a model's layers, and whether the model can work with them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_server.engine.kv.kv_cache import RequestKV, empty_caches
from mlx_server.engine.kv.kv_quantization import KvQuantization
from mlx_server.engine.kv.quantized_kv import QuantizedRequestKV


def quantized_caches(model: Any, quantization: KvQuantization) -> list[Any]:
    """A cache for each layer of a request that begins: plain keys and values are quantized.

    Sliding windows and running states stay as they are: they take little, and mlx-lm cannot.
    """
    group_size, bits = quantization.group_size, quantization.bits
    return [
        QuantizedRequestKV(group_size, bits) if type(cache) is RequestKV else cache
        for cache in empty_caches(model)
    ]


def obstacle(model: Any, quantization: KvQuantization) -> str | None:
    """Why the model cannot work with quantized keys and values; None where it can.

    A prompt and a token are put through it without being computed: MLX is lazy, and checks shapes and types
    as it goes. So no list of families is kept here of those that share keys between layers, cache latents or
    have attention sinks, or heads that the group size does not divide.
    """
    caches = quantized_caches(model, quantization)
    if not any(isinstance(cache, QuantizedRequestKV) for cache in caches):
        return "no layer keeps plain keys and values"
    try:
        pairs = zip(caches, quantized_caches(model, quantization), strict=True)
        batch = [one.merge([one, other]) for one, other in pairs]
        for tokens in ([[0, 0], [0, 0]], [[0], [0]]):
            model(mx.array(tokens), cache=batch)
    except Exception as error:  # a model may raise anything where it meets what it does not know
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    return None
