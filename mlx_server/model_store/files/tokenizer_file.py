"""Read tokenizer.json, the one file of a tokenizer that every model has."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from mlx_server.model_store.files.weight_files import UnreadableModel
from vestal.platform.exhaustion import raise_if_exhausted


def read_tokenizer_file(folder: Path) -> Tokenizer:
    """Return the tokenizer in the tokenizer.json of `folder`, as the tokenizers library reads it. Raises
    UnreadableModel if the file is missing or damaged.
    """
    path = folder / "tokenizer.json"
    try:
        path.open("rb").close()  # the library's error for a lack of descriptors has no number
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for a damaged file
        raise_if_exhausted(error)
        raise UnreadableModel(f"{path}: {_reason(error)}; fetch the model again") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"not a tokenizer ({str(error)[:200]})"
