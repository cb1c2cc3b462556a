"""Notice at little cost, without opening any file, that a model's files have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from mlx_server.model_store.files import sentence_files, weight_files
from vestal.platform.hidden_files import visible

FileState = tuple[str, int, int, int]
"""The path of a file, its inode, its mtime_ns and its size in bytes."""


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files directly in `folder`, except hidden ones, sorted by name."""
    return (path for path in visible(sorted(folder.iterdir())) if path.is_file())


def templates_below(folder: Path) -> list[Path]:
    """Return the files with the suffix .jinja in the folders in `folder`, except hidden ones, sorted."""
    return sorted(visible(folder.glob("*/*.jinja")))


def states_of(folder: Path) -> tuple[FileState, ...]:
    """Return the state of each file of the model in `folder`, which changes whenever the file is written or
    replaced. This takes 0.3 ms for 15 files. Raises OSError if the folder or a file cannot be read.
    """
    below = (*sentence_files.module_files(folder), *templates_below(folder))
    return tuple(map(_state, (*files_in(folder), *below)))


def weights_id(folder: Path) -> str:
    """Return an id of the model's weight files, from their devices, inodes, mtimes and sizes. The inode alone
    would not do, because ext4 gives a new file the inode of one that was just deleted.
    """
    of_modules = (path for path in sentence_files.module_files(folder) if path.suffix == ".safetensors")
    files = (*weight_files.weight_files(folder), *of_modules)
    states = [(path.stat().st_dev, *_state(path)[1:]) for path in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _state(path: Path) -> FileState:
    found = path.stat()
    return str(path), found.st_ino, found.st_mtime_ns, found.st_size
