"""The environment variables that name the libraries an engine computes with."""

BLAS_VARIABLE = "VESTAL_BLAS"
"""Path of the BLAS that the engine loads before mlx; `none` loads none. A value set by the user is kept."""

NARROW_VARIABLE = "VESTAL_BLAS_NARROW"
"""Path of the library for products of a few rows, which passes all others on to OpenBLAS."""
