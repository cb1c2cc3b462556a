"""Are the weights still those that were installed? Their sha256 is noted then, and compared at loads.

Reading 40 GB takes longer than loading them, so a file that has the size and time of its note is taken as it
is; one that was touched since is read once in a process's life.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_server.model_store import layout
from mlx_server.model_store.files.weight_files import UnreadableModel, weight_files

CHUNK_BYTES = 16 * 1024 * 1024
KEY = "weights"
"""Of the manifest: file name → sha256 (hex), bytes, mtime_ns."""

_seen_whole: set[tuple[Path, int, int, str]] = set()


def notes(folder: Path) -> dict[str, Any]:
    """What the manifest is to hold of a model just fetched."""
    return {path.name: {"sha256": sha256(path), **_stamp(path)} for path in weight_files(folder)}


def check(folder: Path) -> Iterator[None]:
    """Compare with what the manifest says, a chunk at a time. Raises UnreadableModel."""
    noted = layout.read_manifest(folder).get(KEY)
    for path in weight_files(folder):
        note = noted.get(path.name) if isinstance(noted, dict) else None
        if not isinstance(note, dict) or not isinstance(wanted := note.get("sha256"), str):
            continue
        stamp = _stamp(path)
        key = (path, stamp["bytes"], stamp["mtime_ns"], wanted.lower())
        if key in _seen_whole or all(note.get(name) == value for name, value in stamp.items()):
            continue
        digest = hashlib.sha256()
        for chunk in _chunks(path):
            digest.update(chunk)
            yield
        if digest.hexdigest() != wanted.lower():
            raise UnreadableModel(
                f"{path}: it has changed since it was installed (sha256 {digest.hexdigest()[:12]}…, noted "
                f"{wanted[:12].lower()}…); fetch the model again"
            )
        _seen_whole.add(key)


def sha256(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
