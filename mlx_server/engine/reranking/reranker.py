"""A loaded reranker: the model, the form of its pairs, and what its configuration says about its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_server.engine.embeddings.encoder import padded
from mlx_server.engine.reranking.pairs import Pair, PairTokenizer

MAX_BATCH_TOKENS = 2048
"""The padded tokens of one forward pass. Other requests run between two passes."""


@dataclass(frozen=True)
class Reranker:
    """A model that scores pairs of a query and a document.

    `model` is called with token ids (batch, length); a mask of the same shape that is True for tokens and
    False for the padding behind them, None without padding; token types (batch, length); and the number of
    tokens of each row (batch). It returns logits (batch). The scores are in 0..1 if `applies_sigmoid`. The
    model has weights for `token_rows` tokens, and `probe` is a short pair for tests of the model.
    """

    model: Any
    tokenizer: PairTokenizer
    context_tokens: int
    token_rows: int
    applies_sigmoid: bool
    probe: Pair

    def logits(self, batch: Sequence[Pair]) -> list[float]:
        """Compute the logits of pairs, and return them in the same order."""
        ids, mask = padded([pair.ids for pair in batch])
        types, _ = padded([pair.types for pair in batch])
        lengths = mx.array([len(pair.ids) for pair in batch])
        return self.model(ids, mask, types, lengths).astype(mx.float32).tolist()

    def score(self, logit: float, *, raw: bool) -> float:
        """Return the score for a logit. The sigmoid is computed with 64 bits, so that it keeps the order of
        large logits.
        """
        if raw or not self.applies_sigmoid or math.isnan(logit):
            return logit
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def ends_in_sigmoid(config: dict[str, Any], sentence_config: dict[str, Any]) -> bool:
    """Return True if the scores of a model with this config.json and config_sentence_transformers.json are
    made by a sigmoid. Raises ValueError for an activation that is neither a sigmoid nor the identity.

    The sigmoid is the default for models with one label. Each version of sentence-transformers has written
    another activation to another place.
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
