"""The environment an engine must be started with, so that its arithmetic is fast; imports no mlx.

On Linux the mlx-cpu wheel carries a reference BLAS, some twenty times slower at prefill than OpenBLAS.
The package `cmeel-openblas` brings OpenBLAS without root, but was linked against a `libgfortran.so.5` that a
bare machine lacks, while mlx-cpu's wheel has one under a mangled name. A folder of links makes them meet. The
loader reads LD_LIBRARY_PATH once, at exec, hence this is the parent's work; `mlx_server.blas` then
loads the library first of all. On macOS MLX uses Accelerate and Metal, and nothing is needed.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

BLAS_VARIABLE = "VESTAL_BLAS"
"""Names the BLAS that the engine loads before mlx. What the user has set is left alone; `none` loads none."""

THREADS_VARIABLE = "OPENBLAS_NUM_THREADS"
"""OpenBLAS's own; a value the user has set is left alone."""

_OPENBLAS = Path("cmeel.prefix") / "lib" / "libopenblas.so.0"
_RUNTIME = "mlx_cpu.libs"


def engine_environment(cache_dir: Path) -> dict[str, str]:
    """Variables to add to the engine's environment; prepares a folder of links under `cache_dir`.

    Empty on macOS. Where the packages are missing or the links cannot be made, the engine takes the system's
    OpenBLAS where there is one, or runs slowly, and says which in its `hello`.
    """
    if not sys.platform.startswith("linux"):
        return {}
    return _threads() | ({} if os.environ.get(BLAS_VARIABLE) else _blas(cache_dir))


def _threads() -> dict[str, str]:
    """One core is left to others. OpenBLAS's threads wait for each other after every product, and where one
    of them has no core to run on, all wait for it: with one other busy process on two cores, two threads made
    2 to 13 tokens a second where one made 17 to 68."""
    if os.environ.get(THREADS_VARIABLE):
        return {}
    return {THREADS_VARIABLE: str(max(1, len(os.sched_getaffinity(0)) - 1))}


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
            # libgfortran looks for its own dependencies beside itself ($ORIGIN), under their mangled names.
            yield from ((path.name, path) for path in runtime.glob("libquadmath-*"))
            return


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    # Made aside and renamed: an engine that starts at the same moment must not find it missing.
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)
