"""A loaded reranker: the model, the form of its pairs, and how its scores are computed from logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_server.engine.embeddings.encoder import padded
from mlx_server.engine.reranking.pairs import Pair, PairTokenizer


@dataclass(frozen=True)
class Reranker:
    """A model that scores pairs of a query and a document.

    `model` is called with token ids (batch, length); a mask of the same shape that is True for tokens and
    False for the padding behind them, or None without padding; token types (batch, length); and the number of
    tokens of each row (batch). It returns logits (batch). Scores are in 0…1 if `applies_sigmoid`, and logits
    otherwise. `token_rows` is how many token ids the model has embeddings for. `probe` is a short pair with
    which the loaded model is tested.
    """

    model: Any
    tokenizer: PairTokenizer
    context_tokens: int
    token_rows: int
    applies_sigmoid: bool
    probe: Pair

    def logits(self, batch: Sequence[Pair]) -> list[float]:
        """Return the logits of the pairs in `batch`, in the same order."""
        ids, mask = padded([pair.ids for pair in batch])
        types, _ = padded([pair.types for pair in batch])
        lengths = mx.array([len(pair.ids) for pair in batch])
        return self.model(ids, mask, types, lengths).astype(mx.float32).tolist()

    def score(self, logit: float, *, raw: bool) -> float:
        """Return the score for a logit; with `raw`, the logit itself. The sigmoid is computed with 64 bits,
        so that the order of large logits is preserved.
        """
        if raw or not self.applies_sigmoid or math.isnan(logit):
            return logit
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def ends_in_sigmoid(config: dict[str, Any], sentence_config: dict[str, Any]) -> bool:
    """Return True if a sigmoid computes the scores of a model with this config.json and
    config_sentence_transformers.json. Raises ValueError if the configured activation is neither a sigmoid nor
    the identity.

    The sigmoid is the default for models with one label. The versions of sentence-transformers have written
    the activation to different places.
    """
    own = config.get("sentence_transformers")
    name = (
        sentence_config.get("activation_fn")
        or (own.get("activation_fn") if isinstance(own, dict) else None)
        or config.get("sbert_ce_default_activation_function")
    )
    if name is None or str(name).endswith("Sigmoid"):
        return True
    if str(name).endswith("Identity"):
        return False
    raise ValueError(f"the activation of its scores is {name}; only a sigmoid and the identity are supported")
