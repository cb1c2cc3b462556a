"""Tokenizers, read ahead by a spare: reading one takes as long as the weights of a small model (0.35 s)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_config, load_tokenizer

from mlx_server.engine.log import log_event

Stamp = tuple[int, int]
_ahead: dict[Path, tuple[Stamp, Any]] = {}


def read_ahead(folders: Iterable[Path]) -> None:
    """Keeps each folder's tokenizer for the first `tokenizer_of`. A broken one is the load's to report."""
    for folder in folders:
        try:
            stamp = _stamp(folder)
            _ahead[folder] = (stamp, load_tokenizer(folder, eos_token_ids=_ends(load_config(folder))))
        except Exception as error:  # a broken folder makes mlx-lm raise nearly anything
            log_event("tokenizer_not_read_ahead", cause=f"{type(error).__name__}: {error}")


def tokenizer_of(folder: Path, config: dict[str, Any]) -> Any:
    """The tokenizer of the model in `folder`: the one read ahead, where its files are still those."""
    stamp, tokenizer = _ahead.pop(folder, (None, None))
    if tokenizer is not None and stamp == _stamp(folder):
        return tokenizer
    return load_tokenizer(folder, eos_token_ids=_ends(config))


def _ends(config: dict[str, Any]) -> Any:
    return config.get("eos_token_id")


def _stamp(folder: Path) -> Stamp:
    """When the newest of its small files was written, and how much they hold."""
    states = [path.stat() for path in folder.glob("*.json")]
    return max(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
