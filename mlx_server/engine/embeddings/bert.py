"""The encoder of BERT (Devlin et al. 2018) in MLX, without pooler and heads, with Hugging Face's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn


@dataclass(frozen=True)
class BertShape:
    """The fields of a model's `config.json` that define the encoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BertShape:
        """Return the shape that `config` describes. Raises ValueError for an unsupported model, KeyError for
        a missing field.
        """
        for key, known in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if config.get(key, known) != known:
                raise ValueError(f"its {key} is {config[key]!r}; only {known!r} is supported")
        optional = {k: config[k] for k in ("type_vocab_size", "layer_norm_eps") if k in config}
        if optional.get("type_vocab_size", 1) < 1:
            raise ValueError("its type_vocab_size is 0; token types need one row at least")
        required = [f for f in cls.__dataclass_fields__ if f not in ("type_vocab_size", "layer_norm_eps")]
        return cls(**{key: config[key] for key in required}, **optional)


class _Attention(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.output = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size, eps=shape.layer_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        batch, length, size = x.shape

        def heads(y: mx.array) -> mx.array:
            return y.reshape(batch, length, self.heads, -1).swapaxes(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        scale = (size // self.heads) ** -0.5
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
        return self.norm(x + self.output(out.swapaxes(1, 2).reshape(batch, length, size)))


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        x = self.attention(x, mask)
        return self.norm(x + self.down(nn.gelu(self.up(x))))


class Bert(nn.Module):
    """Takes token ids and mask, both (batch, length), and returns hidden states (batch, length, hidden)."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.positions = nn.Embedding(shape.max_position_embeddings, shape.hidden_size)
        self.types = nn.Embedding(shape.type_vocab_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.layers = [_Layer(shape) for _ in range(shape.num_hidden_layers)]

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        x = self.norm(x)
        visible = mask[:, None, None, :].astype(mx.bool_)
        for layer in self.layers:
            x = layer(x, visible)
        return x


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
_UNUSED = ("pooler.", "cls.", "embeddings.position_ids")


def rename_weights(weights: dict[str, mx.array]) -> list[tuple[str, mx.array]]:
    """Return the weights under the names of `Bert`'s attributes, without those that it does not use."""
    renamed = []
    for full_name, weight in weights.items():
        name = full_name.removeprefix("bert.")
        if name.startswith(_UNUSED):
            continue
        for old, new in _HUGGING_FACE_NAMES:
            name = name.replace(old, new)
        renamed.append((name, weight))
    return renamed
