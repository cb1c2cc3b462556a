"""Loads a fast BLAS before mlx does; must be called before the first import of `mlx.core`.

Symbols of a library loaded with RTLD_GLOBAL come before those that libmlx was linked with. See
`mlx_server.engine_environment` for where the library comes from.
"""

from __future__ import annotations

import ctypes
import os
import sys

from mlx_server.engine_environment import BLAS_VARIABLE

SYSTEM_OPENBLAS = "libopenblas.so.0"


def preload() -> str:
    """Load the best BLAS there is and say which, in words."""
    if not sys.platform.startswith("linux"):
        return "accelerate"
    wanted = os.environ.get(BLAS_VARIABLE)
    if wanted == "none":
        return "reference (slow): switched off by " + BLAS_VARIABLE
    for library in filter(None, (wanted, SYSTEM_OPENBLAS)):
        if _load(library):
            return f"openblas: {'the system' if library == SYSTEM_OPENBLAS else library}"
    return "reference (slow): no OpenBLAS found; install the package cmeel-openblas or libopenblas0"


def _load(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
