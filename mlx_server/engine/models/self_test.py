"""Does arithmetic still give sense? One forward pass of what is loaded, outside any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.models.loading import LanguageModel, Weights


def probe(loaded: Sequence[Weights]) -> tuple[bool, str]:
    """Whether every loaded model gives one finite, non-trivial result, and a sentence about it."""
    for weights in loaded:
        fault = _embeds(weights) if isinstance(weights, Encoder) else _generates(weights)
        if fault:
            return False, fault
    return True, f"{len(loaded)} of {len(loaded)} models gave sense"


def _generates(model: LanguageModel) -> str:
    logits = model.model(mx.array([[min(model.end_tokens, default=0)]]))[0, -1].astype(mx.float32)
    spread = cast(float, (mx.max(logits) - mx.min(logits)).item())
    return "" if math.isfinite(spread) and spread > 0 else f"a token's logits spread over {spread}"


def _embeds(encoder: Encoder) -> str:
    (vector,) = encoder.encode(encoder.tokenize(["probe"]))
    norm = math.sqrt(sum(value * value for value in vector))
    return "" if math.isfinite(norm) and norm > 0.5 else f"a vector has norm {norm}"
