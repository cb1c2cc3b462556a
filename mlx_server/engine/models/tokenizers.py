"""Read tokenizers, which takes as long as reading the weights of a small model (0.35 s).

A standby engine has time for that before it is needed: it preloads the tokenizers of the models that it will
load first.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_config, load_tokenizer
from transformers import PreTrainedTokenizerBase

from mlx_server.engine.generation.detokenizer import Decode
from mlx_server.engine.log import log_event

FilesVersion = tuple[int, int]
_preloaded: dict[Path, tuple[FilesVersion, Any]] = {}
_in_use: weakref.WeakValueDictionary[tuple[Path, FilesVersion], Any] = weakref.WeakValueDictionary()
_reading = threading.Lock()  # a second thread waits, and uses what the first has read


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
    with _reading:
        version, tokenizer = _preloaded.pop(folder, (None, None))
        present = _files_version(folder)
        if tokenizer is None or version != present:
            tokenizer = _in_use.get((folder, present))
        if tokenizer is None:
            tokenizer = load_tokenizer(folder, eos_token_ids=_end_token_ids(config))
        _in_use[folder, present] = tokenizer
        return tokenizer


def decoder_of(tokenizer: Any) -> Decode:
    """Return a function that returns the text of token ids. It refers to the tokenizer, not to the model.

    Special tokens are included: markers of tool calls are among them.
    """

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return decode


def renders_to_tokens(tokenizer: Any) -> bool:
    """Return whether the class of the tokenizer renders chats itself, in Python, to tokens."""
    theirs = type(tokenizer._tokenizer).apply_chat_template
    return theirs is not PreTrainedTokenizerBase.apply_chat_template


def has_template_text(tokenizer: Any) -> bool:
    """Return whether a Jinja template renders chats, and not Python code of mlx-lm or the tokenizer's class.

    The template is in the model's files, or in a preset that was made for the model.
    """
    return tokenizer._chat_template is None and not renders_to_tokens(tokenizer)


def _end_token_ids(config: dict[str, Any]) -> Any:
    return config.get("eos_token_id")


def _files_version(folder: Path) -> FilesVersion:
    """Return the newest modification time (ns) of the folder's JSON files, and their total size in bytes."""
    states = [path.stat() for path in folder.glob("*.json")]
    return max(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
