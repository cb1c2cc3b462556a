"""Check that the loaded models still compute, with one forward pass of each, outside any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.models.loading import Weights
from mlx_server.engine.models.plausibility import logits_fault
from mlx_server.engine.reranking.reranker import Reranker


def run_self_test(loaded: Sequence[Weights]) -> tuple[bool, str]:
    """Return whether every loaded model computes a plausible result, and a sentence about it for the log."""
    for weights in loaded:
        if fault := _fault(weights):
            return False, fault
    return True, f"{len(loaded)} of {len(loaded)} models compute plausible results."


def _fault(weights: Weights) -> str:
    """Return "" if the model computes a plausible result; else a text that says what is wrong."""
    match weights:
        case Encoder():
            return _embedding_fault(weights)
        case Reranker():
            return _score_fault(weights)
        case _:
            return _logits_fault(weights)


def _logits_fault(model: LanguageModel) -> str:
    """Return "" if the logits after an end token are plausible; else a text that says what is wrong."""
    rows = model.prompts.token_rows
    token = min((token for token in model.end_tokens if rows is None or token < rows), default=0)
    return logits_fault(model.model, token)


def _embedding_fault(encoder: Encoder) -> str:
    """Return "" if the embedding of a short text is finite, not zero and, if the encoder normalizes, of unit
    norm; else a text that says what is wrong.
    """
    (vector,) = encoder.encode([encoder.probe])
    norm = math.sqrt(sum(value * value for value in vector))
    if encoder.is_normalized:
        return "" if abs(norm - 1) < 0.01 else f"An embedding has length {norm}, not 1."
    return "" if math.isfinite(norm) and norm > 0 else f"An embedding has length {norm}."


def _score_fault(reranker: Reranker) -> str:
    """Return "" if the score of a short query and document is finite; else a text that says what is wrong."""
    (logit,) = reranker.logits([reranker.probe])
    return "" if math.isfinite(logit) else f"The score of a document is {logit}."
