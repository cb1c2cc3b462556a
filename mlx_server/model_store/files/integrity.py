"""Compute the sha256 of each weight file of a model that is being installed. Later,
`mlx_server/engine/models/weights` compares the weights with it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mlx_server.model_store.files.weight_files import weight_files

CHUNK_BYTES = 16 * 1024 * 1024
MANIFEST_KEY = "weights"
"""Key in the manifest. Its value maps file names to {"sha256" (hex), "bytes", "mtime_ns"}."""


def compute_checksums(folder: Path) -> dict[str, Any]:
    """Return, by file name, the sha256, size and modification time of each weight file in `folder`. The
    manifest holds this under MANIFEST_KEY.
    """
    return {path.name: {"sha256": sha256_of(path), **_stamp(path)} for path in checked_files(folder)}


def checked_files(folder: Path) -> list[Path]:
    """Return the files in `folder`, the folder of a model or of an adapter, whose checksums are stored and
    compared: its weight files.
    """
    return [*weight_files(folder), *sorted(folder.glob("adapter*.safetensors"))]


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
