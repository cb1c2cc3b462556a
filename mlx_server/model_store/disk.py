"""Check that there is free disk space before anything is fetched or written, and report a full or unwritable
disk in one sentence. Link files, or copy them on a disk without hard links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mlx_server.model_store.errors import ModelStoreError
from vestal.config.units import format_size
from vestal.platform.exhaustion import raise_if_exhausted

FreeBytes = Callable[[Path], int]
MARGIN_BYTES = 64 * 1024 * 1024
"""The reserve: disk space that must stay free, because a disk filled to the last byte breaks more than this
program.
"""


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk that holds `folder`, or will hold it once the folder is created."""
    while not os.path.exists(folder) and folder != folder.parent:
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
    MARGIN_BYTES, which must always stay free.

    `name` is the model that the error names, and `remedy` its sentence that says what the user can do. `free`
    returns the free bytes of a folder's disk.
    """
    available = free(folder)
    if available < need_bytes + MARGIN_BYTES:
        raise disk_full_error(name, need_bytes + MARGIN_BYTES, available, folder, remedy)


def disk_full_error(
    name: str, need_bytes: int, available_bytes: int | None, folder: Path, remedy: str = ANOTHER_STORE
) -> ModelStoreError:
    """Return the error that says that model `name` needs `need_bytes`, and only `available_bytes` are free on
    the disk of `folder`. None for `available_bytes` means that a write failed because no space was left. What
    was free is then not measured, because the incomplete file may be deleted by now. With an empty `name`,
    the error says so of the store. `remedy` is a sentence that says what the user can do.
    """
    what = f"Model {name}" if name else "The folder for models"
    found = f"{folder} had no space left"
    if available_bytes is not None:
        found = f"{format_size(available_bytes)} are free at {folder}"
    return ModelStoreError(
        "disk_full", f"{what} needs {format_size(need_bytes)} of disk, and {found}.", remedy
    )


def is_disk_full(error: OSError) -> bool:
    """Return True if `error` says that the disk or the user's quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def full_disk_explained(
    name: str, need_bytes: int, folder: Path, remedy: str = ANOTHER_STORE
) -> Iterator[None]:
    """Raise ModelStoreError (`disk_full`) in place of an OSError of the `with` block that says that the disk
    is full. Other errors are not changed.

    `name` is the model that the error names, `need_bytes` what it needs on the disk of `folder`.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full_error(name, need_bytes, None, folder, remedy) from error
        raise


@contextlib.contextmanager
def write_errors_explained(name: str, need_bytes: int, store: Path) -> Iterator[None]:
    """Raise ModelStoreError in place of an OSError of the `with` block, which writes only to the folder
    `store`: `disk_full` if the disk is full, else `store_unwritable`. An error that comes from a lack of
    descriptors or memory is not changed.

    `name` is the model that the error names, `need_bytes` what it needs on the disk.
    """
    try:
        with full_disk_explained(name, need_bytes, store):
            yield
    except OSError as error:
        raise_if_exhausted(error)
        raise unwritable_error(store, error) from error


def unwritable_error(store: Path, error: OSError) -> ModelStoreError:
    """Return the error that says that the folder `store` cannot be written, for the reason in `error`."""
    return ModelStoreError(
        "store_unwritable",
        f"The folder for models, {store}, cannot be written ({error.strerror or error}).",
        "Make it writable, or name another with mlx.store (VESTAL_MLX__STORE).",
    )


_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.ENOSYS)


def link_or_copy(name: str, source: Path, target: Path) -> None:
    """Give the file `source` the second name `target` by a hard link. Copy it if the disk has no hard links.

    `name` is the model that an error names. Raises ModelStoreError (`disk_full`) if there is no space for a
    copy, and OSError if the file can be neither linked nor copied.
    """
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        require_space(name, source.stat().st_size, target.parent)
        shutil.copy2(source, target)
