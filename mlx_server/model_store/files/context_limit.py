"""Find out from a model's files how many tokens it reads at most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_server.memory_forecast.text_config import text_config
from mlx_server.model_store.files import sentence_files
from mlx_server.model_store.files.model_kind import Kind

_UNKNOWN_TOKENS = 4096
"""The context of a model whose files do not name one."""
_JUDGED_TOKENS = 8192
"""The longest pair of query and document, in tokens, that Qwen3-Reranker reads, as its authors use it."""
_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_context_length")
"""The names of the largest number of positions in config.json, in order of precedence. GPT-2 has the second
and third, DBRX the fourth, OpenELM the last.
"""
_LEARNED_POSITIONS = frozenset({"gpt2", "gpt_bigcode"})
"""Families with a table of learned positions, which has `n_positions` rows. A token beyond the last row would
get a meaningless position.
"""


def context_tokens(folder: Path, config: dict[str, Any], kind: Kind) -> int:
    """Return how many tokens the model in `folder` reads at most; `config` is its config.json. Raises
    UnreadableModel if a file with the maximum length of an embedding model is not a JSON object.
    """
    if kind == "rerank" and config.get("model_type") == "qwen3":
        return min(sentence_files.context_tokens(folder, config) or _JUDGED_TOKENS, _JUDGED_TOKENS)
    if kind != "generate":
        return sentence_files.context_tokens(folder, config) or _UNKNOWN_TOKENS
    return _positions(text_config(config)) or _UNKNOWN_TOKENS


def _positions(own: Mapping[str, Any]) -> int | None:
    """Return the number of positions that `own`, a model's flat configuration (see `text_config`), names;
    None if it names none.
    """
    names = ("n_positions",) if str(own.get("model_type")) in _LEARNED_POSITIONS else _NAMES
    named = (own.get(name) for name in names)
    return next((limit for limit in named if type(limit) is int and limit > 0), None)
