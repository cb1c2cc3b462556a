"""Compare the vocabularies of two models. A model can draft tokens for another only if ids mean the same in
both.
"""

from __future__ import annotations

import filecmp
import functools
from pathlib import Path
from typing import Any

from mlx_server.model_store.files import weight_files
from mlx_server.model_store.files.weight_files import damage_explained

TOKENIZER = "tokenizer.json"
_OTHER_TOKENIZERS = ("tokenizer.model", "tiktoken.model")


def vocabulary_difference(folder: Path, other: Path) -> str:
    """Return, in words, how the vocabularies of the models in `folder` and `other` differ; "" if they do not.

    Tokens that only one vocabulary has, such as reserved tokens, are not a difference if they are at most 2 %
    of the larger vocabulary. Raises UnreadableModel if a file cannot be read.
    """
    with damage_explained(other / TOKENIZER):
        for name in (TOKENIZER, *_OTHER_TOKENIZERS):
            files = [path / name for path in (folder, other) if (path / name).is_file()]
            if len(files) == 2:
                return _difference(
                    *files, *((file.stat().st_mtime_ns, file.stat().st_size) for file in files)
                )
            if files:
                return f"only {files[0].parent} has a {name}"
    return f"there is no {TOKENIZER} in {folder}"


@functools.lru_cache(maxsize=64)
def _difference(file: Path, other: Path, _stamp: tuple[int, int], _other_stamp: tuple[int, int]) -> str:
    """Return, in words, how the vocabularies in two tokenizer files differ; "" if they do not. The result is
    cached until the modification time or the size of one of the files (`_stamp`, `_other_stamp`) changes.
    """
    if filecmp.cmp(file, other, shallow=False):
        return ""
    if file.name != TOKENIZER:
        return f"{file} and {other} differ"
    tokens, others = _tokens(weight_files.read_json(file)), _tokens(weight_files.read_json(other))
    different = sorted(id for id in tokens.keys() & others.keys() if tokens[id] != others[id])
    if different:
        first = different[0]
        return f"token {first} is {others[first]!r}, not {tokens[first]!r}"
    only_one = len(tokens.keys() ^ others.keys())
    if only_one > max(len(tokens), len(others)) // 50:  # families pad their vocabularies differently
        return f"it has {len(others)} tokens, not {len(tokens)}"
    return ""


def _tokens(tokenizer: dict[str, Any]) -> dict[int, str]:
    """Return the tokens of the parsed tokenizer.json by their ids."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        found = {id: token for token, id in vocabulary.items()}
    else:  # Unigram: pairs of token and score, in the order of their ids
        found = {id: token for id, (token, _) in enumerate(vocabulary)}
    return found | {added["id"]: added["content"] for added in tokenizer.get("added_tokens") or ()}
