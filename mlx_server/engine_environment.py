"""Environment variables that an engine process needs for fast arithmetic on Linux. Imports no mlx.

The mlx-cpu wheel contains a reference BLAS, some twenty times slower at prefill than OpenBLAS. The package
`cmeel-openblas` installs OpenBLAS without root, but it was linked against `libgfortran.so.5`, which a bare
machine lacks; the mlx-cpu wheel contains that library under a mangled name. A folder of symbolic links gives
both libraries the names under which the dynamic loader looks for them. The loader reads LD_LIBRARY_PATH only
when a program starts, so the parent process must set it; the engine then opens the library itself
(`mlx_server.blas`). On macOS, MLX uses Accelerate and Metal and needs none of this.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

BLAS_VARIABLE = "VESTAL_BLAS"
"""Path of the BLAS that the engine loads before mlx; `none` loads none. A value set by the user is kept."""

THREADS_VARIABLE = "OPENBLAS_NUM_THREADS"
"""OpenBLAS reads its number of threads from this variable. A value set by the user is kept."""

THREADS_CHOSEN = "VESTAL_BLAS_THREADS_CHOSEN"
"""Set to 1 if the number of threads is ours and not the user's, so that the engine may change it."""

_OPENBLAS = Path("cmeel.prefix") / "lib" / "libopenblas.so.0"
_RUNTIME = "mlx_cpu.libs"


def engine_environment(cache_dir: Path) -> dict[str, str]:
    """Return the variables to add to the engine's environment; create the folder of links in `cache_dir`.

    The result is empty on macOS. If the packages are missing or the links cannot be created, the engine uses
    the system's OpenBLAS, or the slow reference BLAS; its `hello` event says which.
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
    wanted = dict(_links())
    if not wanted:
        return {}
    folder = cache_dir / "blas"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, target in wanted.items():
            _link(folder / name, target)
    except OSError:
        return {}
    search = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": ":".join(search), BLAS_VARIABLE: str(folder / _OPENBLAS.name)}


def _links() -> Iterator[tuple[str, Path]]:
    for site in dict.fromkeys(sysconfig.get_path(name) for name in ("platlib", "purelib")):
        openblas, runtime = Path(site) / _OPENBLAS, Path(site) / _RUNTIME
        fortran = sorted(runtime.glob("libgfortran-*.so.5*"))
        if openblas.exists() and fortran:
            yield _OPENBLAS.name, openblas.resolve()
            yield "libgfortran.so.5", fortran[0]
            # libgfortran looks for its own dependencies in its own folder ($ORIGIN), by their mangled names.
            yield from ((path.name, path) for path in runtime.glob("libquadmath-*"))
            return


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    # Replaced in one step, because an engine that starts at the same moment must find the link.
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
