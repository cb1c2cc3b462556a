"""Find out how many tokens a model has weights for."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn

_NOT_OF_TOKENS = ("wpe", "position", "per_layer", "embedders")
"""Parts of the names of embeddings whose rows do not correspond to token ids."""


def token_rows(model: Any) -> int | None:
    """Return how many rows the model's token embedding has; None if the model has no embedding. Valid token
    ids are smaller.

    A tokenizer may have more tokens than that, and MLX does not check indices but would read beyond the
    weights.
    """
    rows = [
        int(module.weight.shape[0])
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding))
        and not any(part in name for part in _NOT_OF_TOKENS)
    ]
    return min(rows, default=None)
