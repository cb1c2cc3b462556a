"""Build, for the processor of this machine, the C library that multiplies a few rows by a large matrix
(`narrow_products.c`, and its threads in `helper_threads.c`).

A machine that runs MLX's CPU build has a C compiler, because MLX compiles its own kernels with it.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mlx_server.blas.made_once import made_once

_FOLDER = Path(__file__).parent
_SOURCES = (_FOLDER / "narrow_products.c", _FOLDER / "helper_threads.c")
_HEADERS = (_FOLDER / "helper_threads.h",)
_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-O3", "-march=native", "-shared", "-fPIC", "-pthread")
_BUILT_WITHIN_S = 60.0
_CPUINFO = Path("/proc/cpuinfo")
_TELLING = ("flags", "Features", "model name", "CPU part")
"""The lines of /proc/cpuinfo that say which instructions a processor has."""


def narrow_library(folders: Iterable[Path]) -> Path | None:
    """Return the path of the library that multiplies a few rows by a large matrix. The library is in the
    first of `folders` that has it or in which it can be built, and is built there if it is missing. Return
    None if no folder has it and it can be built in none of them.
    """
    return made_once(f"libnarrow-{_digest()}.so", folders, _build)


def _digest() -> str:
    """Return a short digest of all that the compiled library depends on: sources, compiler options and
    processor.

    The processor is included because the folder with the library may be copied to a machine whose processor
    lacks some of the instructions that the library uses.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*_SOURCES, *_HEADERS)))
    digest.update(repr((_OPTIONS, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:12]


def _processor() -> list[str]:
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(_TELLING)})


def _build(library: Path) -> None:
    """Compile the sources to the file `library`. Raises OSError if there is no C compiler, and
    subprocess.SubprocessError if the compiler fails or takes longer than a minute.
    """
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError("There is no C compiler.")
    command = [compiler, *_OPTIONS, "-o", str(library), *map(str, _SOURCES)]
    subprocess.run(command, check=True, capture_output=True, timeout=_BUILT_WITHIN_S)
