"""Check that the loaded models still compute, with one forward pass of each, outside any batch."""

from __future__ import annotations

from collections.abc import Mapping

from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.models.loading import Weights
from mlx_server.engine.models.plausibility import embedding_fault, logits_fault, score_fault, token_to_test
from mlx_server.engine.reranking.reranker import Reranker


def run_self_test(loaded: Mapping[str, Weights]) -> tuple[bool, str]:
    """Return whether every loaded model computes a plausible result, and a sentence about it for the log.

    `loaded` are the models by their names. The sentence names the model that does not.
    """
    for name, weights in loaded.items():
        if fault := _fault(weights):
            return False, f"Model {name} computes no plausible result: {fault}"
    return True, f"{len(loaded)} of {len(loaded)} models compute plausible results."


def _fault(weights: Weights) -> str:
    """Return "" if the model computes a plausible result; else a text that says what is wrong."""
    match weights:
        case Encoder():
            return embedding_fault(weights)
        case Reranker():
            return score_fault(weights)
        case _:
            token = token_to_test(weights.end_tokens, weights.prompts.token_rows)
            return logits_fault(weights.model, token)
