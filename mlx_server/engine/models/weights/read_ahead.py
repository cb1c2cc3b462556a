"""Have the system read the weights of models into its page cache before the engine can load them.

An engine that starts imports MLX for a second, in which the disk has nothing to do. A standby engine has done
that; while it sets itself up, the disk may begin with what a kill under memory pressure had pushed out of the
cache. Nothing is read into the process, and what is in the cache already costs nothing.
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
"""The share of the available memory that may be filled: the model itself needs more of it."""

_F_RDADVISE = 44  # of fcntl(2) on macOS; its argument is struct radvisory {off_t offset; int count}


def start(config: Config) -> threading.Thread:
    """Begin to read ahead the models that the engine will load first, in a thread of its own."""
    thread = threading.Thread(target=_run, args=(config,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _run(config: Config) -> None:
    with contextlib.suppress(Exception):  # whatever is wrong with the models, their load reports it
        limit_bytes = int(MEMORY_SHARE * psutil.virtual_memory().available)
        read_ahead(files_of(config.mlx.preload, catalog(config)), limit_bytes)


def files_of(names: Iterable[str], models: Iterable[ModelEntry]) -> list[Path]:
    """Return the files of weights of the named models, in the order in which they are loaded."""
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
    """Ask the system to read the files, in ranges of RANGE_BYTES, until `limit_bytes` were asked for.

    Return how many bytes were asked for. A file that cannot be read is left out.
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
