"""Compute a hash that differs between models of the same shape: of all small files, and of a sample of every
tensor.

Two fine-tunes of one model have the same configuration, names, shapes and sizes. A server that compares only
those would use the keys and values of one model for the other. Hashing all weights would take longer than the
prompt cache saves.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mlx_server.model_store.files.file_states import files_in

SAMPLE_BYTES = 2048
_SMALL = frozenset({".json", ".jinja", ".txt", ".model"})


def fingerprint(folder: Path) -> str:
    """Return the sha256 (hex) of a model's small files and of samples of its weights. Raises OSError,
    ValueError or KeyError if the folder is not a model or cannot be read.
    """
    digest = hashlib.sha256()
    for path in files_in(folder):
        if path.suffix in _SMALL:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        elif path.suffix == ".safetensors":
            digest.update(path.name.encode() + b"\0")
            sample_file(path, digest)
    return digest.hexdigest()


def sample_file(path: Path, digest: Any) -> None:
    """Add a safetensors file's header to the hash `digest`, and up to SAMPLE_BYTES from the middle of each
    tensor. Raises OSError, ValueError or KeyError if the file cannot be read or is damaged.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > path.stat().st_size - 8:
            raise ValueError(f"{path} is not a safetensors file, or is cut off")
        raw = file.read(length)
        digest.update(raw)
        for name, tensor in sorted(json.loads(raw).items()):
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                file.seek(8 + length + (begin + end) // 2)
                digest.update(file.read(min(SAMPLE_BYTES, end - (begin + end) // 2)))
