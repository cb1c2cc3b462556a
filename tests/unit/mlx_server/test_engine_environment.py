"""The OpenBLAS that an engine loads on Linux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_server.blas.openblas import plain_library
from mlx_server.blas.variables import BLAS_VARIABLE
from mlx_server.engine_environment import (
    TEMPORARY_VARIABLE,
    THREADS_CHOSEN,
    engine_environment,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="MLX uses Accelerate on macOS")

PACKAGED = Path(sysconfig.get_path("platlib")) / "scipy_openblas32" / "lib" / "libscipy_openblas.so"
USE = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
library.openblas_get_config.restype = library.openblas_get_corename.restype = ctypes.c_char_p
floats, f, i = ctypes.c_float * 4, ctypes.c_float, ctypes.c_int
a, b, c = floats(1, 2, 3, 4), floats(5, 6, 7, 8), floats()
row_major, no = i(101), i(111)
library.cblas_sgemm(row_major, no, no, i(2), i(2), i(2), f(1), a, i(2), b, i(2), f(0), c, i(2))
print(json.dumps([list(c), library.openblas_get_config().decode(), hasattr(library, "ssyevd_")]))
"""


def used(library: Path) -> tuple[list[float], str, bool]:
    """Multiply in another process by the library. Return the product, the library's configuration, and
    whether it has LAPACK.
    """
    done = subprocess.run(
        [sys.executable, "-c", USE, library], capture_output=True, text=True, check=True, timeout=110
    )
    product, configuration, has_lapack = json.loads(done.stdout)
    return product, configuration, has_lapack


def test_adapted_openblas_has_the_symbol_names_that_mlx_needs_and_kernels_for_every_processor(tmp_path):
    """An OpenBLAS that was built for AVX-512 alone ended the engine by SIGILL on other processors."""
    made = plain_library(PACKAGED, [tmp_path / "blas"])
    assert made is not None and made.parent == tmp_path / "blas"
    product, configuration, has_lapack = used(made)
    assert product == [19.0, 22.0, 43.0, 50.0] and has_lapack
    assert "DYNAMIC_ARCH" in configuration


def test_openblas_copy_with_renamed_symbols_is_created_only_once_and_then_reused(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    made = plain_library(PACKAGED, [first])
    assert made is not None
    assert plain_library(PACKAGED, [first, second]) == made
    assert not second.exists()
    assert list(first.iterdir()) == [made], "nothing temporary is left"


def test_openblas_copy_with_renamed_symbols_is_created_in_the_next_folder_if_one_is_not_writable(tmp_path):
    (tmp_path / "a file").touch()
    made = plain_library(PACKAGED, [tmp_path / "a file", tmp_path / "blas"])
    assert made is not None and made.parent == tmp_path / "blas"


def test_adapted_openblas_created_by_several_engines_at_once_is_whole(tmp_path):
    with ThreadPoolExecutor(4) as threads:
        made = set(threads.map(lambda _: plain_library(PACKAGED, [tmp_path]), range(4)))
    assert len(made) == 1
    assert used(made.pop() or Path())[0] == [19.0, 22.0, 43.0, 50.0]


def test_openblas_library_that_cannot_be_read_is_not_used(tmp_path):
    (tmp_path / "torn.so").write_bytes(b"\x7fELF torn")
    assert plain_library(tmp_path / "torn.so", [tmp_path / "blas"]) is None
    assert list((tmp_path / "blas").iterdir()) == []


def test_blas_library_and_threads_chosen_by_the_user_are_not_overridden(tmp_path, monkeypatch):
    monkeypatch.setenv(BLAS_VARIABLE, "/opt/libmine.so")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert set(engine_environment(tmp_path)) == {TEMPORARY_VARIABLE}


def test_engine_gets_the_packaged_openblas_and_one_thread_fewer_than_cores(tmp_path, monkeypatch):
    monkeypatch.delenv(BLAS_VARIABLE, raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    given = engine_environment(tmp_path)
    assert given[THREADS_CHOSEN] == "1" and int(given["OPENBLAS_NUM_THREADS"]) >= 1
    assert Path(given[BLAS_VARIABLE]).name.startswith("libopenblas-")


@pytest.mark.parametrize("fault", ["others may write", "somebody else's", "a file"])
def test_folder_for_temporary_files_that_others_could_write_is_not_used(tmp_path, monkeypatch, fault):
    monkeypatch.setattr("mlx_server.engine_environment.packaged_library", lambda: None)
    first = tmp_path / "blas" / "temporary"
    assert engine_environment(tmp_path)[TEMPORARY_VARIABLE] == str(first)
    assert first.stat().st_mode & 0o777 == 0o700
    if fault == "others may write":
        first.chmod(0o777)
    elif fault == "a file":
        first.rmdir()
        first.write_text("")
    else:
        own = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: own + 1)
    assert TEMPORARY_VARIABLE not in engine_environment(tmp_path)
