"""Quantised caches for a model's layers, and whether the model can work with them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_server.engine.kv.kv_cache import RequestKV, empty_caches
from mlx_server.engine.kv.kv_quantisation import KvQuantisation
from mlx_server.engine.kv.quantised_kv import QuantisedRequestKV


def quantised_caches(model: Any, quantisation: KvQuantisation) -> list[Any]:
    """A cache for each layer of a request that begins: plain keys and values are quantised.

    Sliding windows and running states stay as they are: they take little, and mlx-lm cannot.
    """
    group_size, bits = quantisation.group_size, quantisation.bits
    return [
        QuantisedRequestKV(group_size, bits) if type(cache) is RequestKV else cache
        for cache in empty_caches(model)
    ]


def obstacle(model: Any, quantisation: KvQuantisation) -> str | None:
    """Why the model cannot work with quantised keys and values; None where it can.

    A prompt and a token are put through it without being computed: MLX is lazy, and checks shapes and types
    as it goes. So no list of families is kept here of those that share keys between layers, cache latents or
    have attention sinks, or heads that the group size does not divide.
    """
    caches = quantised_caches(model, quantisation)
    if not any(isinstance(cache, QuantisedRequestKV) for cache in caches):
        return "no layer keeps plain keys and values"
    try:
        pairs = zip(caches, quantised_caches(model, quantisation), strict=True)
        batch = [one.merge([one, other]) for one, other in pairs]
        for tokens in ([[0, 0], [0, 0]], [[0], [0]]):
            model(mx.array(tokens), cache=batch)
    except Exception as error:  # a model may raise anything where it meets what it does not know
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    return None
