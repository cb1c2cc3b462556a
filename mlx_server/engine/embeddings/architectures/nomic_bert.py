"""The encoder of Nomic-BERT (Nussbaum et al. 2024): BERT with rotary positions and SwiGLU.

The first configurations of Nomic-BERT name their fields as GPT-2 does. The configurations made by
transformers name their fields as BERT does, and split the projection of queries, keys and values into three.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.embeddings.architectures.activations import silu
from mlx_server.engine.embeddings.architectures.attention import Heads, Layout, TextEncoder

_FIELDS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
}
"""By the name of a field in transformers: its name in the first configurations."""


class _Attention(nn.Module):
    def __init__(self, size: int, heads: int, theta: float, bias: bool) -> None:
        super().__init__()
        self.heads = Heads(heads, nn.RoPE(size // heads, base=theta))
        self.Wqkv = nn.Linear(size, 3 * size, bias=bias)
        self.out_proj = nn.Linear(size, size, bias=bias)

    def __call__(self, x: mx.array, layout: Layout) -> mx.array:
        return self.out_proj(layout.attend(self.heads, *mx.split(self.Wqkv(x), 3, axis=-1)))


class _FeedForward(nn.Module):
    def __init__(self, size: int, inner: int, bias: tuple[bool, bool]) -> None:
        super().__init__()
        self.fc11, self.fc12 = (nn.Linear(size, inner, bias=bias[0]) for _ in range(2))
        self.fc2 = nn.Linear(inner, size, bias=bias[1])

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(self.fc11(x) * silu(self.fc12(x)))


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        theta = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rotary_emb_base", 1000)
        bias = (config.get("mlp_fc1_bias", False), config.get("mlp_fc2_bias", False))
        self.attn = _Attention(
            size, config["num_attention_heads"], float(theta), config.get("qkv_proj_bias", False)
        )
        self.norm1, self.norm2 = (nn.LayerNorm(size, eps=eps) for _ in range(2))
        self.mlp = _FeedForward(size, config["intermediate_size"], bias)

    def __call__(self, x: mx.array, layout: Layout) -> mx.array:
        x = self.norm1(x + self.attn(x, layout))
        return self.norm2(x + self.mlp(x))


class NomicBert(TextEncoder):
    """The encoder of Nomic-BERT, for padded or packed texts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], size)
        self.types = nn.Embedding(config.get("type_vocab_size", 2), size)
        self.emb_ln = nn.LayerNorm(size, eps=config.get("layer_norm_eps", 1e-12))
        self.layers = [_Layer(config) for _ in range(config["num_hidden_layers"])]

    def states(
        self, ids: mx.array, positions: mx.array, types: mx.array | None, layout: Layout
    ) -> Iterator[mx.array]:
        x = self.emb_ln(self.words(ids) + self.types(mx.array([0]) if types is None else types))
        for layer in self.layers:
            x = layer(x, layout)
            yield x


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config`, a parsed config.json, describes. Raises ValueError or KeyError if
    `config` is not supported.
    """
    old = {name: config[alias] for name, alias in _FIELDS.items() if alias in config}
    return NomicBert(dict(config) | old)


_NAMES = (
    ("embeddings.word_embeddings.", "words."),
    ("embeddings.token_type_embeddings.", "types."),
    ("embeddings.LayerNorm.", "emb_ln."),
    ("encoder.layers.", "layers."),
    ("self_attn.o_proj.", "attn.out_proj."),
    ("mlp.up_proj.", "mlp.fc11."),
    ("mlp.gate_proj.", "mlp.fc12."),
    ("mlp.down_proj.", "mlp.fc2."),
    ("post_attention_layernorm.", "norm1."),
    ("post_mlp_layernorm.", "norm2."),
)
_PROJECTION = re.compile(r"(layers\.\d+)\.self_attn\.([qkv])_proj\.(\w+)")


def rename(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Return the weights under the names of the encoder's attributes, with the separate projections of
    queries, keys and values joined. Weights that are not the encoder's, such as those of task heads, keep
    their names, but lose the prefixes `model.` and `nomic_bert.`.
    """
    renamed: dict[str, mx.array] = {}
    divided: dict[str, dict[str, mx.array]] = {}
    for full_name, weight in weights.items():
        name = full_name.removeprefix("model.").removeprefix("nomic_bert.")
        for old, new in _NAMES:
            name = name.replace(old, new)
        if match := _PROJECTION.fullmatch(name):
            divided.setdefault(f"{match[1]}.attn.Wqkv.{match[3]}", {})[match[2]] = weight
        else:
            renamed[name] = weight
    for name, parts in divided.items():
        renamed[name] = mx.concatenate([parts[part] for part in "qkv"], axis=0)
    return renamed
