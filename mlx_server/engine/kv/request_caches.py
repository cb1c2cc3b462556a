"""Make the key-value caches of a new request, quantized or not. Find out what the caches of a model support:
quantization, dropping the last tokens, and padding.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from mlx_server.engine.kv.grouped_kv import GroupedKV
from mlx_server.engine.kv.kv_cache import BatchKV, RequestKV
from mlx_server.engine.kv.quantized_kv_cache import QuantizedRequestKV
from mlx_server.memory_forecast.kv_quantization import KvQuantization


def make_request_caches(model: Any, quantization: KvQuantization | None = None) -> list[Any]:
    """Return an empty cache for each layer of the model.

    With `quantization`, layers with full attention get quantized caches. Sliding windows and recurrent states
    are never quantized, because they take little memory, and mlx-lm cannot quantize them.
    """
    return [
        _full_attention_cache(quantization) if type(cache) is KVCache else cache
        for cache in make_prompt_cache(model)
    ]


def _full_attention_cache(quantization: KvQuantization | None) -> RequestKV | QuantizedRequestKV:
    if quantization is None:
        return RequestKV()
    return QuantizedRequestKV(quantization.group_size, quantization.bits)


def can_drop_tokens(model: Any) -> bool:
    """Return whether every layer stores plain keys and values, of which the last tokens can be dropped.

    Tokens cannot be dropped from sliding windows and recurrent states, which overwrite their earlier
    contents.
    """
    return all(type(cache) is KVCache for cache in make_prompt_cache(model))


def quantization_obstacle(model: Any, quantization: KvQuantization) -> str | None:
    """Return why the model cannot work with quantized keys and values; None if it can.

    A trial finds this out: the model is called with two requests, first with two tokens of each, then with
    one. Nothing is computed, because MLX is lazy and checks only shapes and types when a function is called.
    Thanks to the trial, no list has to be kept of models that share keys between layers, cache latent
    vectors, have attention sinks, or have heads that the group size does not divide.
    """
    caches = make_request_caches(model, quantization)
    if not any(isinstance(cache, QuantizedRequestKV) for cache in caches):
        return "no layer keeps plain keys and values"
    try:
        pairs = zip(caches, make_request_caches(model, quantization), strict=True)
        batch = [one.merge([one, other]) for one, other in pairs]
        for tokens in ([[0, 0], [0, 0]], [[0], [0]]):
            model(mx.array(tokens), cache=batch)
    except Exception as error:  # a model may raise any exception for a cache that it does not know
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    return None


def supports_groups(model: Any, quantization: KvQuantization | None = None) -> bool:
    """Return whether the model can compute with `GroupedKV` caches. In these, the requests of a batch are in
    several groups of similar length, and each group has its own arrays.

    Return False if a layer stores anything other than plain keys and values. For other models, a trial
    decides: the model is called with two requests in two groups, once with one token of each request and once
    with two. Nothing is computed, because MLX is lazy. A call raises an exception if the model computes
    attention by another function than the one that `layers/attention.py` replaces. Thanks to the trial, no
    list of such models has to be kept.
    """
    try:
        one, other = (
            [cache.merge([cache]) for cache in make_request_caches(model, quantization)] for _ in range(2)
        )
        if not all(isinstance(cache, BatchKV) for cache in one):
            return False
        for caches in (one, other):
            model(mx.array([[0, 0]]), cache=caches)
        groups = [GroupedKV(pair) for pair in zip(one, other, strict=True)]
        for tokens in ([[0], [0]], [[0, 0], [0, 0]]):
            model(mx.array(tokens), cache=groups)
    except Exception:  # a model may raise any exception for keys that it does not know
        return False
    return True


def supports_padding(model: Any) -> bool:
    """Return whether the model can process prompts of different lengths together, padded to one length.

    A model with a recurrent state must skip the padding. mlx-lm 0.32.2's mamba and jamba do not skip it: a
    short prompt that is processed together with a long one gets a different answer, and the prompt cache
    would store a wrong state.
    """
    return all(type(cache) in (KVCache, RotatingKVCache) for cache in make_prompt_cache(model))
