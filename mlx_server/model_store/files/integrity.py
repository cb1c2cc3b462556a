"""Check that weights are still those that were installed: their sha256 is recorded, and compared at loads.

Reading 40 GB takes longer than loading them. So a file whose size and modification time are those recorded
counts as unchanged; any other file is read once in the life of a process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_server.model_store import layout
from mlx_server.model_store.files.weight_files import UnreadableModel, weight_files

CHUNK_BYTES = 16 * 1024 * 1024
MANIFEST_KEY = "weights"
"""Key in the manifest; its value maps file names to {"sha256" (hex), "bytes", "mtime_ns"}."""

_verified: set[tuple[Path, int, int, str]] = set()
"""Touched files that have been read and found unchanged: path, bytes, mtime_ns, sha256."""


def compute_checksums(folder: Path) -> dict[str, Any]:
    """Return the manifest's entry (under MANIFEST_KEY) for the weight files in `folder`."""
    return {path.name: {"sha256": sha256_of(path), **_stamp(path)} for path in weight_files(folder)}


def check(folder: Path) -> Iterator[None]:
    """Compare the weight files with the manifest; yield after each chunk that was read.

    Files without a checksum in the manifest are not checked. Raises UnreadableModel if one has changed.
    """
    recorded = layout.read_manifest(folder).get(MANIFEST_KEY)
    for path in weight_files(folder):
        entry = recorded.get(path.name) if isinstance(recorded, dict) else None
        if not isinstance(entry, dict) or not isinstance(wanted := entry.get("sha256"), str):
            continue
        stamp = _stamp(path)
        key = (path, stamp["bytes"], stamp["mtime_ns"], wanted.lower())
        if key in _verified or all(entry.get(name) == value for name, value in stamp.items()):
            continue
        digest = hashlib.sha256()
        for chunk in _chunks(path):
            digest.update(chunk)
            yield
        if digest.hexdigest() != wanted.lower():
            raise UnreadableModel(
                f"{path}: it has changed since it was installed (sha256 {digest.hexdigest()[:12]}…, recorded "
                f"{wanted[:12].lower()}…); fetch the model again"
            )
        _verified.add(key)


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
