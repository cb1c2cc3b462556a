"""Check that a model computes, with one forward pass of a few tokens: its logits are finite and differ from
each other, its embedding has a length, its score is a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.reranking.reranker import Reranker
from mlx_server.model_store.files.weight_files import UnreadableModel


def raise_if_damaged(folder: Path, fault: str) -> None:
    """Raise UnreadableModel if `fault`, what is wrong with the results of the model in `folder`, is not "".

    A load ends with this check, because a loaded model that computes NaN fails the engine's self-test, and
    the gateway would replace one engine after the other, with all their models.
    """
    if fault:
        raise UnreadableModel(f"{folder}: {fault} Its weights are damaged; pull or convert the model again")


def token_to_test(end_tokens: Iterable[int], rows: int | None) -> int:
    """Return the token with which `logits_fault` is to test a language model: the first of its `end_tokens`
    below `rows`, which is how many tokens the model has weights for (None: unknown); 0 if there is none.
    """
    return min((token for token in end_tokens if rows is None or token < rows), default=0)


def logits_fault(model: Any, token: int) -> str:
    """Compute the logits after one token. Return "" if they are finite and not all equal; else a text that
    says what is wrong.
    """
    logits = model(mx.array([[token]]))[0, -1].astype(mx.float32)
    spread = cast(float, (mx.max(logits) - mx.min(logits)).item())
    return "" if math.isfinite(spread) and spread > 0 else f"The logits of a token spread over {spread}."


def embedding_fault(encoder: Encoder) -> str:
    """Return "" if the embedding of a short text is finite, not zero and, if the encoder normalizes, of unit
    norm; else a text that says what is wrong.
    """
    (vector,) = encoder.encode([encoder.probe])
    norm = math.sqrt(sum(value * value for value in vector))
    if encoder.is_normalized:
        return "" if abs(norm - 1) < 0.01 else f"An embedding has length {norm}, not 1."
    return "" if math.isfinite(norm) and norm > 0 else f"An embedding has length {norm}."


def score_fault(reranker: Reranker) -> str:
    """Return "" if the score of a short query and document is finite; else a text that says what is wrong."""
    (logit,) = reranker.logits([reranker.probe])
    return "" if math.isfinite(logit) else f"The score of a document is {logit}."
