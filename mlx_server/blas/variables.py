"""Name the environment variables that tell an engine which libraries to compute with."""

BLAS_VARIABLE = "VESTAL_BLAS"
"""Path of the BLAS that the engine loads before mlx; with `none` it loads none. A value set by the user is
kept.
"""

NARROW_VARIABLE = "VESTAL_BLAS_NARROW"
"""Path of our library for products of a few rows. It passes all other products on to OpenBLAS."""
