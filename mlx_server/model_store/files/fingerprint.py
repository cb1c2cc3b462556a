"""What tells one model from another of the same shape: all its small files, and a sample of every tensor.

Two fine-tunes of one model have the same configuration, names, shapes and sizes; a peer that compared those
gave one model the other's keys and values. Reading gigabytes to be sure would cost what a cache saves.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

SAMPLE_BYTES = 2048
_SMALL = frozenset({".json", ".jinja", ".txt", ".model"})


def fingerprint(folder: Path) -> str:
    """sha256, hex. Raises OSError, ValueError or KeyError for files that are no model's."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _SMALL:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        elif path.suffix == ".safetensors":
            digest.update(path.name.encode() + b"\0")
            _sample(path, digest)
    return digest.hexdigest()


def _sample(path: Path, digest: Any) -> None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = file.read(length)
        digest.update(raw)
        for name, tensor in sorted(json.loads(raw).items()):
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                file.seek(8 + length + (begin + end) // 2)
                digest.update(file.read(min(SAMPLE_BYTES, end - (begin + end) // 2)))
