"""`python -m mlx_server.prepare_host`: build the libraries that engines on Linux use, so that the first
engine need not wait for the compiler. `deploy/bootstrap.sh` runs this after it has installed Vestal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mlx_server import blas
from mlx_server.engine_environment import engine_environment


def main() -> None:
    """Build the libraries in the folder of the installed packages, if it can be written. Print nothing but
    events in the form of an engine's log.
    """
    os.environ |= engine_environment(Path(sys.prefix) / "cache")
    blas.preload()  # before MLX is imported, which takes its BLAS from what is loaded then

    from mlx_server.engine.layers.compiled_loops import load_compiled_loops

    load_compiled_loops()


if __name__ == "__main__":
    main()
