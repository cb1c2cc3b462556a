"""Choose the environment variables that an engine process needs for fast arithmetic on Linux. Imports no mlx.

The mlx-cpu wheel contains a reference BLAS, whose prefill is about twenty times slower than with OpenBLAS. An
engine opens the libraries that these variables name before it imports MLX (`mlx_server.blas`). On macOS, MLX
uses Accelerate and Metal, and needs none of this.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_server.blas.narrow_products import narrow_library
from mlx_server.blas.openblas import packaged_library, plain_library
from mlx_server.blas.variables import BLAS_VARIABLE, NARROW_VARIABLE

THREADS_VARIABLE = "OPENBLAS_NUM_THREADS"
"""OpenBLAS reads its number of threads from this variable. A value set by the user is kept."""

THREADS_CHOSEN = "VESTAL_BLAS_THREADS_CHOSEN"
"""Set to 1 if we chose the number of threads and not the user, so that the engine may change it."""

TEMPORARY_VARIABLE = "TMPDIR"
"""Names the folder for temporary files, for Python and for MLX."""


def engine_environment(cache_dir: Path) -> dict[str, str]:
    """Return the variables to add to the engine's environment: on Linux, the number of OpenBLAS's threads,
    the paths of two libraries for MLX, and that of a folder for temporary files; on macOS, none. A number of
    threads or a BLAS that the user has chosen is kept.

    The libraries are a copy of the OpenBLAS in the package `scipy-openblas32`, with the function names that
    MLX looks for, and our own library for products with few rows. This function makes them once, in the
    folder of that OpenBLAS, or in the folder `blas` in `cache_dir` if that folder cannot be written. If the
    package is missing or the copy cannot be made, no library is named, and the engine uses the system's
    OpenBLAS or the slow reference BLAS; its `hello` event says which.

    The folder for temporary files is in the one of these two folders in which nobody else can write
    (`_temporary_files`).
    """
    if not sys.platform.startswith("linux"):
        return {}
    packaged = packaged_library()
    folders = [cache_dir / "blas"] if packaged is None else [packaged.parent, cache_dir / "blas"]
    libraries = {} if os.environ.get(BLAS_VARIABLE) or not packaged else _libraries(packaged, folders)
    return _threads() | libraries | _temporary_files(folders)


def _threads() -> dict[str, str]:
    """Return the variables that give OpenBLAS one thread fewer than there are cores, unless the user has set
    the number. `mlx_server.engine.blas_threads` adds one for prompts while the cores are idle.

    OpenBLAS's threads wait for each other after every product, so if one of them has no core to run on, all
    wait for it. Measured with one other busy process on two cores: 2 to 13 tokens per second with two
    threads, 17 to 68 with one.
    """
    if os.environ.get(THREADS_VARIABLE):
        return {}
    return {THREADS_VARIABLE: str(max(1, len(os.sched_getaffinity(0)) - 1)), THREADS_CHOSEN: "1"}


def _libraries(packaged: Path, folders: Sequence[Path]) -> dict[str, str]:
    openblas = plain_library(packaged, folders)
    if openblas is None:
        return {}
    narrow = narrow_library(folders)
    return {BLAS_VARIABLE: str(openblas)} | ({NARROW_VARIABLE: str(narrow)} if narrow else {})


def _temporary_files(folders: Sequence[Path]) -> dict[str, str]:
    """Return the variable that names the engine's folder for temporary files, in the first of `folders` in
    which nobody else can write. Return none if there is no such folder.

    MLX builds libraries in this folder, and opens those that it finds there
    (`mlx_server.engine.layers.compiled_loops`). In the folder that all users of a machine share, another user
    could put a library there, which the engine would run.
    """
    for folder in folders:
        temporary = folder / "temporary"
        with contextlib.suppress(OSError):
            temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = temporary.stat()
            if status.st_uid == os.geteuid() and not status.st_mode & 0o022 and os.access(temporary, os.W_OK):
                return {TEMPORARY_VARIABLE: str(temporary)}
    return {}
