"""Check that there is free disk space before anything is fetched or written, and report a full disk in one
sentence.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from mlx_server.model_store.errors import ModelStoreError
from vestal.config.units import format_size

FreeBytes = Callable[[Path], int]
MARGIN_BYTES = 64 * 1024 * 1024
"""The reserve: disk space that must stay free, because a disk filled to the last byte breaks more than this
program.
"""


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk that holds `folder`, or will hold it once the folder is created."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


ANOTHER_STORE = "Free some, or name another folder with mlx.store (VESTAL_MLX__STORE)."


def require_space(
    name: str,
    need_bytes: int,
    folder: Path,
    free: FreeBytes = free_bytes,
    remedy: str = ANOTHER_STORE,
) -> None:
    """Raise ModelStoreError (`disk_full`) if the disk of `folder` has less free space than `need_bytes` plus
    the reserve.

    `name` is the model that the error names; `free` returns the free bytes of a folder's disk.
    """
    available = free(folder)
    if available < need_bytes + MARGIN_BYTES:
        raise disk_full_error(name, need_bytes + MARGIN_BYTES, available, folder, remedy)


def disk_full_error(
    name: str, need_bytes: int, available_bytes: int, folder: Path, remedy: str = ANOTHER_STORE
) -> ModelStoreError:
    """Return the error that says that model `name` needs `need_bytes`, and only `available_bytes` are free on
    the disk of `folder`. `remedy` is a sentence that says what the user can do.
    """
    need, available = format_size(need_bytes), format_size(available_bytes)
    return ModelStoreError(
        "disk_full",
        f"Model {name} needs {need} of disk, and {available} are free at {folder}.",
        remedy,
    )


def is_disk_full(error: OSError) -> bool:
    """Return True if `error` says that the disk or the user's quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
