"""The encoder of ModernBERT (Warner et al. 2024), which has rotary positions, and layers that mostly attend
to near tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.embeddings.architectures.activations import gelu
from mlx_server.engine.embeddings.architectures.attention import Heads, Layout, TextEncoder

_THETA = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}
_OLD_THETA = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}


class _Attention(nn.Module):
    def __init__(self, config: Mapping[str, Any], kind: str) -> None:
        super().__init__()
        size, bias = config["hidden_size"], config.get("attention_bias", False)
        count = config["num_attention_heads"]
        distance = config.get("local_attention", 128) // 2 if kind == "sliding_attention" else None
        self.heads = Heads(count, nn.RoPE(size // count, base=_theta(config, kind)), distance)
        self.Wqkv = nn.Linear(size, 3 * size, bias=bias)
        self.Wo = nn.Linear(size, size, bias=bias)

    def __call__(self, x: mx.array, layout: Layout) -> mx.array:
        return self.Wo(layout.attend(self.heads, *mx.split(self.Wqkv(x), 3, axis=-1)))


class _FeedForward(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size, inner, bias = config["hidden_size"], config["intermediate_size"], config.get("mlp_bias", False)
        self.Wi = nn.Linear(size, 2 * inner, bias=bias)
        self.Wo = nn.Linear(inner, size, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.Wi(x), 2, axis=-1)
        return self.Wo(gelu(value) * gate)


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any], kind: str, is_first: bool) -> None:
        super().__init__()
        self.attn_norm = nn.Identity() if is_first else _norm(config)
        self.attn = _Attention(config, kind)
        self.mlp_norm = _norm(config)
        self.mlp = _FeedForward(config)

    def __call__(self, x: mx.array, layout: Layout) -> mx.array:
        x = x + self.attn(self.attn_norm(x), layout)
        return x + self.mlp(self.mlp_norm(x))


class _Embeddings(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.norm = _norm(config)


class ModernBert(TextEncoder):
    """The encoder of ModernBERT. The model has no token types, so `types` has no effect."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        kinds = layer_types(config)
        self.embeddings = _Embeddings(config)
        self.layers = [_Layer(config, kind, i == 0) for i, kind in enumerate(kinds)]
        self.final_norm = _norm(config)

    def states(
        self, ids: mx.array, positions: mx.array, types: mx.array | None, layout: Layout
    ) -> Iterator[mx.array]:
        x = self.embeddings.norm(self.embeddings.tok_embeddings(ids))
        for layer in self.layers:
            x = layer(x, layout)
            yield x
        yield self.final_norm(x)


def layer_types(config: Mapping[str, Any]) -> list[str]:
    """Return the kind of attention of each layer: `full_attention`, or `sliding_attention` (to near tokens
    only).
    """
    every = config.get("global_attn_every_n_layers", 3)
    count = config["num_hidden_layers"]
    chosen = config.get("layer_types")
    return chosen or ["sliding_attention" if i % every else "full_attention" for i in range(count)]


def _theta(config: Mapping[str, Any], kind: str) -> float:
    """Return the base of the rotary positions in layers of this `kind`. Old and new config files have
    different names for it; if `config` has neither name, return ModernBERT's default.
    """
    named = (config.get("rope_parameters") or {}).get(kind) or {}
    return float(named.get("rope_theta") or config.get(_OLD_THETA[kind]) or _THETA[kind])


def _norm(config: Mapping[str, Any]) -> nn.LayerNorm:
    return nn.LayerNorm(
        config["hidden_size"], config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False)
    )


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config`, a parsed config.json, describes. Raises ValueError or KeyError if
    `config` is not supported.
    """
    return ModernBert(config)


def rename(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Return the weights under the names of the encoder's attributes, that is, without the prefix
    `model.`.
    """
    return {name.removeprefix("model."): weight for name, weight in weights.items()}
