"""Reads tokenizers, which takes as long as reading the weights of a small model (0.35 s).

A standby engine has time for that before it is needed: it preloads the tokenizers of the models that it will
load first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_config, load_tokenizer

from mlx_server.engine.log import log_event

FilesVersion = tuple[int, int]
_preloaded: dict[Path, tuple[FilesVersion, Any]] = {}


def preload_tokenizers(folders: Iterable[Path]) -> None:
    """Read the tokenizer of each model folder, for the first `take_tokenizer` of that folder.

    A folder that cannot be read is skipped: loading its model reports the error.
    """
    for folder in folders:
        try:
            version = _files_version(folder)
            tokenizer = load_tokenizer(folder, eos_token_ids=_end_token_ids(load_config(folder)))
            _preloaded[folder] = (version, tokenizer)
        except Exception as error:  # mlx-lm may raise any exception for a damaged folder
            log_event("tokenizer_not_read_ahead", cause=f"{type(error).__name__}: {error}")


def take_tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    """Return the tokenizer of the model in `folder`: the preloaded one, unless its files have changed."""
    version, tokenizer = _preloaded.pop(folder, (None, None))
    if tokenizer is not None and version == _files_version(folder):
        return tokenizer
    return load_tokenizer(folder, eos_token_ids=_end_token_ids(config))


def _end_token_ids(config: dict[str, Any]) -> Any:
    return config.get("eos_token_id")


def _files_version(folder: Path) -> FilesVersion:
    """Return the newest modification time (ns) of the folder's JSON files, and their total size in bytes."""
    states = [path.stat() for path in folder.glob("*.json")]
    return max(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
