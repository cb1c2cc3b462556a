"""The encoder of BERT (Devlin et al. 2018) in MLX, without its pooler and task heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.embeddings.architectures.activations import gelu
from mlx_server.engine.embeddings.architectures.attention import Heads, Layout, TextEncoder


class _Attention(nn.Module):
    def __init__(self, size: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = Heads(heads)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.output = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size, eps=eps)

    def __call__(self, x: mx.array, layout: Layout) -> mx.array:
        seen = layout.attend(self.heads, self.query(x), self.key(x), self.value(x))
        return self.norm(x + self.output(seen))


class _Layer(nn.Module):
    def __init__(self, size: int, inner: int, heads: int, eps: float) -> None:
        super().__init__()
        self.attention = _Attention(size, heads, eps)
        self.up = nn.Linear(size, inner)
        self.down = nn.Linear(inner, size)
        self.norm = nn.LayerNorm(size, eps=eps)

    def __call__(self, x: mx.array, layout: Layout) -> mx.array:
        x = self.attention(x, layout)
        return self.norm(x + self.down(gelu(self.up(x))))


class Bert(TextEncoder):
    """The encoder of BERT. `first_position` is the row of the position embeddings for a text's
    first token.
    """

    def __init__(self, config: Mapping[str, Any], first_position: int = 0) -> None:
        super().__init__()
        size, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        if (types := config.get("type_vocab_size", 2)) < 1:
            raise ValueError("its type_vocab_size is 0; token types need one row at least")
        self.first_position = first_position
        self.words = nn.Embedding(config["vocab_size"], size)
        self.positions = nn.Embedding(config["max_position_embeddings"], size)
        self.types = nn.Embedding(types, size)
        self.norm = nn.LayerNorm(size, eps=eps)
        inner, heads = config["intermediate_size"], config["num_attention_heads"]
        self.layers = [_Layer(size, inner, heads, eps) for _ in range(config["num_hidden_layers"])]

    def states(
        self, ids: mx.array, positions: mx.array, types: mx.array | None, layout: Layout
    ) -> Iterator[mx.array]:
        places = self.positions(positions + self.first_position)
        x = self.norm(self.words(ids) + places + self.types(mx.array([0]) if types is None else types))
        for layer in self.layers:
            x = layer(x, layout)
            yield x


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config`, a parsed config.json, describes. Raises ValueError or KeyError if
    `config` is not supported.
    """
    return Bert(config)


_HUGGING_FACE_NAMES = (
    ("embeddings.word_embeddings.", "words."),
    ("embeddings.position_embeddings.", "positions."),
    ("embeddings.token_type_embeddings.", "types."),
    ("embeddings.LayerNorm.", "norm."),
    ("encoder.layer.", "layers."),
    ("attention.self.", "attention."),
    ("attention.output.dense.", "attention.output."),
    ("attention.output.LayerNorm.", "attention.norm."),
    ("intermediate.dense.", "up."),
    ("output.dense.", "down."),
    ("output.LayerNorm.", "norm."),
)
_PREFIXES = ("model.", "bert.", "roberta.")
_ENCODER = ("embeddings.", "encoder.layer.")


def rename(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Return the weights under the names of the encoder's attributes. Weights that are not the encoder's,
    such as those of task heads, keep their names.
    """
    renamed = {}
    for full_name, weight in weights.items():
        name = full_name
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if not name.startswith(_ENCODER):
            renamed[full_name] = weight
            continue
        for old, new in _HUGGING_FACE_NAMES:
            name = name.replace(old, new)
        renamed[name] = weight
    return renamed
