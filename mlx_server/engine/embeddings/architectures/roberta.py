"""The encoder of RoBERTa and XLM-RoBERTa: BERT, but the first token has the position `pad_token_id` + 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.nn as nn

from mlx_server.engine.embeddings.architectures import bert

rename = bert.rename


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config`, a parsed config.json, describes. Raises ValueError or KeyError if
    `config` is not supported.
    """
    defaults = {"layer_norm_eps": 1e-5, "type_vocab_size": 1}
    return bert.Bert(defaults | dict(config), first_position=config.get("pad_token_id", 1) + 1)
