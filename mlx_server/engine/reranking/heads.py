"""The heads that turn an encoder's hidden states into one logit, for each family of models. The weights have
Hugging Face's names.

Each head takes hidden states (batch, length, hidden) and the number of tokens of each row (batch), and
returns logits (batch, 1). Columns after a row's tokens are padding.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn


class BertHead(nn.Module):
    """BERT's head: the pooler (a layer with tanh over the first token), then the classifier."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.pooler = {"dense": nn.Linear(config["hidden_size"], config["hidden_size"])}
        self.classifier = nn.Linear(config["hidden_size"], 1)

    def __call__(self, hidden: mx.array, lengths: mx.array) -> mx.array:
        return self.classifier(mx.tanh(self.pooler["dense"](hidden[:, 0])))


class RobertaHead(nn.Module):
    """The head of RoBERTa and XLM-RoBERTa: two layers over the first token, with tanh between them."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.classifier = {"dense": nn.Linear(size, size), "out_proj": nn.Linear(size, 1)}

    def __call__(self, hidden: mx.array, lengths: mx.array) -> mx.array:
        return self.classifier["out_proj"](mx.tanh(self.classifier["dense"](hidden[:, 0])))


class ModernBertHead(nn.Module):
    """ModernBERT's head: a layer with GELU and a norm, over the first token or the mean of all tokens, then
    the classifier.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        if (activation := config.get("classifier_activation", "gelu")) != "gelu":
            raise ValueError(f"its classifier_activation is {activation!r}; only 'gelu' is supported")
        self.pooling = config.get("classifier_pooling", "cls")
        if self.pooling not in ("cls", "mean"):
            raise ValueError(f"its classifier_pooling is {self.pooling!r}, neither 'cls' nor 'mean'")
        self.head = {
            "dense": nn.Linear(size, size, bias=bool(config.get("classifier_bias", False))),
            "norm": nn.LayerNorm(
                size, eps=config.get("norm_eps", 1e-5), bias=bool(config.get("norm_bias", False))
            ),
        }
        self.classifier = nn.Linear(size, 1)

    def __call__(self, hidden: mx.array, lengths: mx.array) -> mx.array:
        pooled = hidden[:, 0]
        if self.pooling == "mean":
            is_token = (mx.arange(hidden.shape[1])[None] < lengths[:, None])[..., None]
            pooled = mx.where(is_token, hidden, 0).sum(axis=1) / lengths[:, None]
        return self.classifier(self.head["norm"](nn.gelu(self.head["dense"](pooled))))


HEADS: dict[str, type[BertHead | RobertaHead | ModernBertHead]] = {
    "bert": BertHead,
    "camembert": RobertaHead,
    "modernbert": ModernBertHead,
    "roberta": RobertaHead,
    "xlm-roberta": RobertaHead,
}
"""By `model_type` of config.json: the head. The types are those of `model_kind.RERANKING_ENCODERS`."""
