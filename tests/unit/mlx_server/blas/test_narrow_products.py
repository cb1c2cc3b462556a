"""Products of a few rows equal those of OpenBLAS, and all others are passed on to it."""

from __future__ import annotations

import ctypes
import platform
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.blas import narrow_products, openblas
from mlx_server.blas.narrow_products import narrow_library

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="MLX uses Accelerate on macOS")

ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112
FLOATS = ctypes.POINTER(ctypes.c_float)
PASSED_ON = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 6)
COUNTS = ctypes.CFUNCTYPE(ctypes.c_int)


class Products:
    """The library, which passes on to a function that notes it; `threads` is what OpenBLAS would say."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.threads, self.passed_on = 1, 0
        self._sgemm = library.cblas_sgemm
        # A function with more parameters may be called by one that takes fewer of them.
        self._functions = (PASSED_ON(self._note), COUNTS(lambda: self.threads))
        library.vestal_pass_on_to(*(ctypes.cast(each, ctypes.c_void_p) for each in self._functions))

    def _note(self, *arguments: int) -> None:
        self.passed_on += 1

    def __call__(self, x, weight, y, alpha=1.0, beta=0.0, transposed=TRANSPOSED):
        """Compute `y = alpha x W^T + beta y` in place, for arrays whose rows may be longer than is used."""
        (rows, width), outputs = x.shape, weight.shape[0]
        sizes = [ctypes.c_int(size) for size in (ROW_MAJOR, AS_IT_IS, transposed, rows, outputs, width)]
        arguments = [ctypes.c_float(alpha), *_matrix(x), *_matrix(weight), ctypes.c_float(beta), *_matrix(y)]
        self._sgemm(*sizes, *arguments)


def _matrix(array: np.ndarray) -> tuple[object, ctypes.c_int]:
    return array.ctypes.data_as(FLOATS), ctypes.c_int(array.strides[0] // 4)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    path = narrow_library([tmp_path_factory.mktemp("blas")])
    assert path is not None, "MLX's CPU build needs a compiler too"
    return ctypes.CDLL(str(path))


@given(
    rows=st.integers(1, 8),
    outputs=st.one_of(st.integers(32, 90), st.integers(2000, 2100)),
    width=st.integers(32, 80),
    spare=st.integers(0, 5),
    alpha=st.sampled_from([1.0, -0.5]),
    beta=st.sampled_from([0.0, 1.0, 0.25]),
    seed=st.integers(0, 9),
)
def test_narrow_product_equals_that_of_numpy(library, rows, outputs, width, spare, alpha, beta, seed):
    random = np.random.default_rng(seed)
    whole = [random.standard_normal((n, k + spare), np.float32) for n, k in
             ((rows, width), (outputs, width), (rows, outputs))]  # fmt: skip
    x, weight, y = (each[:, : each.shape[1] - spare] for each in whole)
    wanted = alpha * (x.astype(np.float64) @ weight.T) + (beta * y if beta else 0)
    beyond = whole[2][:, outputs:].copy()
    if not beta:
        y[:] = np.nan  # BLAS does not read the result then
    products = Products(library)
    products(x, weight, y, alpha, beta)
    assert products.passed_on == 0
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(whole[2][:, outputs:], beyond)


@pytest.mark.parametrize(
    ("rows", "outputs", "width", "threads", "transposed"),
    [
        (9, 64, 64, 1, TRANSPOSED),
        (5, 64, 64, 2, TRANSPOSED),
        (1, 31, 64, 1, TRANSPOSED),
        (1, 64, 31, 1, TRANSPOSED),
        (1, 64, 64, 1, AS_IT_IS),
    ],
)
def test_other_products_are_passed_on(library, rows, outputs, width, threads, transposed):
    products = Products(library)
    products.threads = threads
    y = np.zeros((rows, outputs), np.float32)
    x, weight = np.ones((rows, width), np.float32), np.ones((outputs, width), np.float32)
    products(x, weight, y, transposed=transposed)
    assert products.passed_on == 1 and not y.any()


def test_library_is_built_once_for_each_kind_of_processor(tmp_path, monkeypatch):
    built = narrow_library([tmp_path])
    assert built is not None and list(tmp_path.iterdir()) == [built], "nothing temporary is left"
    monkeypatch.setattr(narrow_products, "_COMPILERS", ())
    assert narrow_library([tmp_path]) == built
    monkeypatch.setattr(narrow_products, "_processor", lambda: ["model name: another"])
    assert narrow_library([tmp_path]) is None, "a copied folder brings no instructions from elsewhere"


def test_library_that_cannot_be_built_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    assert narrow_library([tmp_path / "a file"]) is None
    monkeypatch.setattr(narrow_products, "_OPTIONS", ("-no-such-option",))
    assert narrow_library([tmp_path / "blas"]) is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="there is no package for it")
def test_packaged_openblas_is_found():
    assert openblas.packaged_library() is not None
