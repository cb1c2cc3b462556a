"""Load a fast BLAS library, before the first import of `mlx.core`.

The dynamic loader prefers symbols of a library that was opened with RTLD_GLOBAL to those of the libraries
that libmlx was linked with. `mlx_server.engine_environment` says where the library comes from.
"""

from __future__ import annotations

import ctypes
import os
import sys

from mlx_server.engine_environment import BLAS_VARIABLE

SYSTEM_OPENBLAS = "libopenblas.so.0"


def preload() -> str:
    """Load the fastest BLAS that is installed. Return its name and path as text.

    Call this before `mlx.core` is imported: later it has no effect.
    """
    if not sys.platform.startswith("linux"):
        return "accelerate"
    wanted = os.environ.get(BLAS_VARIABLE)
    if wanted == "none":
        return "reference (slow): switched off by " + BLAS_VARIABLE
    for library in filter(None, (wanted, SYSTEM_OPENBLAS)):
        if _load(library):
            return f"openblas: {'the system' if library == SYSTEM_OPENBLAS else library}"
    return "reference (slow): no OpenBLAS found; install the package cmeel-openblas or libopenblas0"


def core_name() -> str:
    """Return OpenBLAS's name for the kind of processor whose kernels it uses, such as `SkylakeX`.

    Return an empty text if another BLAS is loaded.
    """
    name = getattr(ctypes.CDLL(None), "openblas_get_corename", None)
    if name is None:
        return ""
    name.restype = ctypes.c_char_p
    return bytes(name() or b"").decode("ascii", "replace")


def threads() -> int:
    """Return how many threads OpenBLAS uses; 0 if another BLAS is loaded."""
    count = getattr(ctypes.CDLL(None), "openblas_get_num_threads", None)
    return int(count()) if count is not None else 0


def set_threads(count: int) -> None:
    """Let OpenBLAS use `count` threads from its next product on. OpenBLAS must be loaded."""
    ctypes.CDLL(None).openblas_set_num_threads(ctypes.c_int(count))


def _load(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
