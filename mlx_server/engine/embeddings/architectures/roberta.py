"""The encoder of RoBERTa and XLM-RoBERTa: BERT, whose positions begin after the padding token's number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.nn as nn

from mlx_server.engine.embeddings.architectures import bert

rename = bert.rename


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config` describes. Raises ValueError or KeyError if it is not supported."""
    defaults = {"layer_norm_eps": 1e-5, "type_vocab_size": 1}
    return bert.Bert(defaults | dict(config), first_position=config.get("pad_token_id", 1) + 1)
