"""Check that the loaded models still compute: one forward pass of each, outside any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.models.loading import LanguageModel, Weights


def run_self_test(loaded: Sequence[Weights]) -> tuple[bool, str]:
    """Return whether every model computes a plausible result, and a sentence about it."""
    for weights in loaded:
        fault = _embedding_fault(weights) if isinstance(weights, Encoder) else _logits_fault(weights)
        if fault:
            return False, fault
    return True, f"{len(loaded)} of {len(loaded)} models compute plausible results."


def _logits_fault(model: LanguageModel) -> str:
    """Return "" if the logits after one token are finite and not all equal, and else what is wrong."""
    rows = model.prompts.token_rows
    token = min((token for token in model.end_tokens if rows is None or token < rows), default=0)
    logits = model.model(mx.array([[token]]))[0, -1].astype(mx.float32)
    spread = cast(float, (mx.max(logits) - mx.min(logits)).item())
    return "" if math.isfinite(spread) and spread > 0 else f"The logits of a token spread over {spread}."


def _embedding_fault(encoder: Encoder) -> str:
    """Return "" if an embedding has length 1, as all should, and else what is wrong."""
    (vector,) = encoder.encode([encoder.probe])
    norm = math.sqrt(sum(value * value for value in vector))
    return "" if math.isfinite(norm) and norm > 0.5 else f"An embedding has length {norm}, not 1."
