"""Make the operating system read the weights of models into its page cache before the engine can load them.

An engine that starts imports MLX for a second, while the disk is idle. A standby engine has already imported
MLX; while it sets itself up, the disk can begin to read weights that were pushed out of the cache when memory
was short. Nothing is read into the process, and reading ahead takes no time for files that are already in the
cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from mlx_server.model_store import ModelEntry, catalog
from mlx_server.model_store.files.weight_files import weight_files
from vestal.config import Config, find_named

RANGE_BYTES = 32 * 1024 * 1024
MEMORY_SHARE = 0.25
"""The share of the available memory that may be filled. The rest is left to the model itself."""

_F_RDADVISE = 44  # of fcntl(2) on macOS; its argument is struct radvisory {off_t offset; int count}


def start(config: Config) -> threading.Thread:
    """Start a thread that reads ahead the weights of the models that the engine will load first. Return the
    thread.
    """
    thread = threading.Thread(target=_run, args=(config,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _run(config: Config) -> None:
    with contextlib.suppress(Exception):  # whatever is wrong with the models, their load reports it
        limit_bytes = int(MEMORY_SHARE * psutil.virtual_memory().available)
        read_ahead(files_of(config.mlx.preload, catalog(config)), limit_bytes)


def files_of(names: Iterable[str], models: Iterable[ModelEntry]) -> list[Path]:
    """Return the files of weights of the models `names`, in the same order. Models that are not installed are
    skipped.
    """
    installed = list(models)
    found = [find_named(name, installed, lambda entry: entry.name) for name in names]
    return [file for entry in found if entry is not None for file in weight_files(entry.path)]


def _advise(descriptor: int, offset: int, size: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, _F_RDADVISE, struct.pack("qi", offset, size))
    else:
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)


def read_ahead(
    files: Iterable[Path], limit_bytes: int, advise: Callable[[int, int, int], None] = _advise
) -> int:
    """Ask the operating system to read `files`, in ranges of RANGE_BYTES, up to `limit_bytes` in all, so that
    they are in its cache when the weights are loaded.

    `advise` asks for one range: it is called with a file descriptor, an offset and a number of bytes. Return
    the number of bytes of all ranges. A file that cannot be opened is skipped.
    """
    asked = 0
    for file in files:
        with contextlib.suppress(OSError), file.open("rb", buffering=0) as stream:
            size = min(os.fstat(stream.fileno()).st_size, limit_bytes - asked)
            for offset in range(0, size, RANGE_BYTES):
                count = min(RANGE_BYTES, size - offset)
                advise(stream.fileno(), offset, count)
                asked += count
    return asked
