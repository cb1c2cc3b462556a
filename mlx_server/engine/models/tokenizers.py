"""Read tokenizers, which takes as long as reading the weights of a small model (0.35 s).

A standby engine uses the time before it is needed to preload the tokenizers of the models that it will load
first.
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
from mlx_server.model_store.files.file_states import files_in
from mlx_server.model_store.files.model_folder import TEXTS, processor_template

FilesVersion = tuple[int, int]
_preloaded: dict[Path, tuple[FilesVersion, Any]] = {}
_in_use: weakref.WeakValueDictionary[tuple[Path, FilesVersion], Any] = weakref.WeakValueDictionary()
_reading = threading.Lock()  # a second thread waits, and uses the tokenizer that the first has read


def preload_tokenizers(folders: Iterable[Path]) -> None:
    """Read the tokenizer of each model folder, so that the next `take_tokenizer` for that folder returns it
    at once.

    A folder that cannot be read is skipped and logged. The error is reported when its model is loaded.
    """
    for folder in folders:
        try:
            version = _files_version(folder)
            tokenizer = _read(folder, load_config(folder))
            _preloaded[folder] = (version, tokenizer)
        except Exception as error:  # mlx-lm may raise any exception for a damaged folder
            log_event("tokenizer_not_read_ahead", cause=f"{type(error).__name__}: {error}")


def take_tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    """Return the tokenizer of the model in `folder`. A tokenizer that was preloaded, or that another model
    uses, is returned again if the folder's files have not changed since it was read; otherwise, the tokenizer
    is read from the files. This module then refers to the tokenizer only weakly, so that it is freed with its
    last user.

    `config` is the model's configuration, as mlx-lm reads it. It names the tokens that end an answer. Raises
    an exception of any type if the files are missing or damaged.
    """
    with _reading:
        version, tokenizer = _preloaded.pop(folder, (None, None))
        present = _files_version(folder)
        if tokenizer is None or version != present:
            tokenizer = _in_use.get((folder, present))
        if tokenizer is None:
            tokenizer = _read(folder, config)
        _in_use[folder, present] = tokenizer
        return tokenizer


def decoder_of(tokenizer: Any) -> Decode:
    """Return a function that converts token ids to text. The function refers to the tokenizer, but not to the
    model.

    The text includes special tokens, because some of them are markers of tool calls.
    """

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return decode


def renders_to_tokens(tokenizer: Any) -> bool:
    """Return whether the tokenizer's class itself renders chats, in Python, to token ids."""
    theirs = type(tokenizer._tokenizer).apply_chat_template
    return theirs is not PreTrainedTokenizerBase.apply_chat_template


def has_template_text(tokenizer: Any) -> bool:
    """Return whether chats are rendered by a Jinja template, and not by Python code of mlx-lm or the
    tokenizer's class.

    Return True even if the model's files contain no template. Another model can be made of the same files
    with a template of its own, and a request for that model brings this template with it.
    """
    return tokenizer._chat_template is None and not renders_to_tokens(tokenizer)


def _read(folder: Path, config: dict[str, Any]) -> Any:
    """Return the tokenizer from the files in `folder`. `config` is the model's configuration."""
    end_ids = config.get("eos_token_id")
    tokenizer = load_tokenizer(folder, eos_token_ids=end_ids)
    template = "" if tokenizer.chat_template else processor_template(folder)  # which no tokenizer reads
    if not template:
        return tokenizer
    return load_tokenizer(folder, {"chat_template": template}, eos_token_ids=end_ids)


def _files_version(folder: Path) -> FilesVersion:
    """Return the latest modification time (ns) of the folder's small files, such as JSON files and templates,
    and their total size in bytes.
    """
    states = [path.stat() for path in files_in(folder) if path.suffix in TEXTS]
    return max(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
