"""Is there room? Asked before anything is fetched or written, and answered in one sentence."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from mlx_server.model_store.errors import ModelStoreError

FreeBytes = Callable[[Path], int]
MARGIN_BYTES = 64 * 1024 * 1024
"""What is left free at least: a disk filled to the brim breaks more than this."""


def free_bytes(folder: Path) -> int:
    """Free space for us where `folder` is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require(name: str, need_bytes: int, folder: Path, free: FreeBytes = free_bytes) -> None:
    """Raises ModelStoreError (`disk_full`) where `folder` has no room for `need_bytes`."""
    available = free(folder)
    if available < need_bytes + MARGIN_BYTES:
        raise full(name, need_bytes + MARGIN_BYTES, available, folder)


def full(name: str, need_bytes: int, available_bytes: int, folder: Path) -> ModelStoreError:
    """The error for a disk without room."""
    return ModelStoreError(
        "disk_full",
        f"Model {name} needs {size(need_bytes)} of disk, and {size(available_bytes)} are free at {folder}.",
        "Free some, or name another folder with mlx.store (VESTAL_MLX__STORE).",
    )


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def size(count: int) -> str:
    """A size for people: `94 MB`, `4.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"
