"""Turn the hidden states of each text into one vector, as sentence-transformers does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.embeddings.architectures.activations import gelu, silu
from mlx_server.model_store.files.sentence_modules import SentenceSteps

_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "identity": lambda x: x,
    "tanh": mx.tanh,
    "relu": nn.relu,
    "gelu": gelu,
    "silu": silu,
    "sigmoid": mx.sigmoid,
}


def pool(hidden: mx.array, lengths: Sequence[int], prompt_tokens: int, modes: Sequence[str]) -> mx.array:
    """Return a float32 vector for each text: the vectors of all pooling `modes`, concatenated.

    `hidden` is (batch, length, hidden). Text i is in the first `lengths[i]` columns, and begins with
    `prompt_tokens` tokens, which pooling leaves out.
    """
    hidden = hidden.astype(mx.float32)
    length = mx.array(list(lengths))[:, None]
    column = mx.arange(hidden.shape[1])[None]
    counts = ((column >= prompt_tokens) & (column < length))[..., None]
    return mx.concatenate([_pool(mode, hidden, length, column, counts, prompt_tokens) for mode in modes], -1)


def _pool(
    mode: str, hidden: mx.array, length: mx.array, column: mx.array, counts: mx.array, prompt_tokens: int
) -> mx.array:
    if mode == "cls":
        return hidden[:, min(prompt_tokens, hidden.shape[1] - 1)]
    if mode == "lasttoken":
        return mx.take_along_axis(hidden, length[..., None] - 1, axis=1)[:, 0]
    if mode == "max":
        return mx.where(counts, hidden, -mx.inf).max(axis=1)
    weights = counts.astype(mx.float32)
    if mode == "weightedmean":
        weights = weights * (column + 1)[..., None]
    total, weight = (hidden * weights).sum(axis=1), mx.maximum(weights.sum(axis=1), 1e-9)
    return total / (mx.sqrt(weight) if mode == "mean_sqrt_len_tokens" else weight)


def project(vectors: mx.array, steps: SentenceSteps, weights: Mapping[str, mx.array]) -> mx.array:
    """Return the vectors after all projections of `steps`. `weights` has the tensors `i.weight` and `i.bias`
    of projection i.
    """
    for i, dense in enumerate(steps.projections):
        vectors = vectors @ weights[f"{i}.weight"].T
        if dense.bias:
            vectors = vectors + weights[f"{i}.bias"]
        vectors = _ACTIVATIONS[dense.activation](vectors)
    return vectors


def output_size(hidden_size: int, steps: SentenceSteps) -> int:
    """Return how many numbers a text's vector has after the pooling and the projections of `steps`."""
    sizes = [dense.out_features for dense in steps.projections]
    return sizes[-1] if sizes else hidden_size * len(steps.pooling)
