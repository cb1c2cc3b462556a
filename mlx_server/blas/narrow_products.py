"""Build the library for products of a few rows (`narrow_products.c`), for the processor of this machine.

A compiler is there where MLX's CPU build runs: MLX compiles kernels of its own with it.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-O3", "-march=native", "-shared", "-fPIC")
_BUILT_WITHIN_S = 60.0
_CPUINFO = Path("/proc/cpuinfo")
_TELLING = ("flags", "Features", "model name", "CPU part")
"""The lines of /proc/cpuinfo that say which instructions a processor has."""


def narrow_library(folders: Iterable[Path]) -> Path | None:
    """Return the library, in the first of the folders that has it or can be written; None if it cannot be
    built.
    """
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    name = f"libnarrow-{_digest()}.so"
    for library in [folder / name for folder in folders]:
        try:
            if not library.exists():
                if compiler is None:
                    continue
                _build(compiler, library)
        except (OSError, subprocess.SubprocessError):
            continue
        return library
    return None


def _digest() -> str:
    """Return a digest of all that the library depends on.

    The processor is part of it: a folder that is copied to another machine must not bring instructions which
    that one lacks.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes())
    digest.update(repr((_OPTIONS, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:12]


def _processor() -> list[str]:
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(_TELLING)})


def _build(compiler: str, library: Path) -> None:
    """Compile the source. Raises OSError, subprocess.SubprocessError."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".narrow-") as folder:
        built = Path(folder) / library.name
        command = [compiler, *_OPTIONS, "-o", str(built), str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True, timeout=_BUILT_WITHIN_S)
        built.replace(library)  # in one step: an engine that starts at the same moment must find all of it
