"""Find out how many tokens a model has weights for."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn

_NOT_OF_TOKENS = ("wpe", "position", "per_layer", "embedders")
"""Parts of the names of embeddings whose rows do not correspond to token ids."""


def token_rows(model: Any) -> int | None:
    """Return how many rows the model's token embedding has; None if the model has no embedding. Only token
    ids below this number are valid.

    A tokenizer may have more tokens than the embedding has rows. The caller must refuse their ids, because
    MLX does not check indices, and would read memory beyond the weights.
    """
    rows = [
        int(module.weight.shape[0])
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding))
        and not any(part in name for part in _NOT_OF_TOKENS)
    ]
    return min(rows, default=None)
