"""The number of tokens that a model has weights for."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn

_NOT_OF_TOKENS = ("wpe", "position", "per_layer", "embedders")
"""Parts of the names of embeddings whose rows are not tokens, or whose model maps tokens to rows itself."""


def token_rows(model: Any) -> int | None:
    """Return the number of rows of the model's token embedding; None if it has no embedding. Valid token ids
    are smaller.

    A tokenizer may have more tokens than that. MLX does not check indices: it would read beyond the weights.
    """
    rows = [
        int(module.weight.shape[0])
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding))
        and not any(part in name for part in _NOT_OF_TOKENS)
    ]
    return min(rows, default=None)
