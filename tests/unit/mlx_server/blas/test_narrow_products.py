"""Products of a few rows equal those of OpenBLAS, and all others are passed on to it."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor

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
    """The library with a recording function in place of OpenBLAS; `threads` is OpenBLAS' number."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.threads, self.passed_on = 1, 0
        self._sgemm = library.cblas_sgemm
        # A function with more parameters may be called by one that takes fewer of them.
        self._functions = (PASSED_ON(self._note), COUNTS(lambda: self.threads))
        library.vestal_pass_on_to(*(ctypes.cast(each, ctypes.c_void_p) for each in self._functions))

    def _note(self, *arguments: int) -> None:
        self.passed_on += 1

    def __call__(self, x, weight, y, alpha=1.0, beta=0.0, transposed=TRANSPOSED):
        """Compute `y = alpha x W^T + beta y` in place, or the same with W as it is, for arrays whose rows may
        be longer than what is used of them.
        """
        (rows, width), outputs = x.shape, weight.shape[0 if transposed == TRANSPOSED else 1]
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


@st.composite
def operands(draw, rows, outputs, width):
    """Draw x, W^T and y, of rows that are longer than what is used by the same number of columns."""
    random = np.random.default_rng(draw(st.integers(0, 9)))
    rows, outputs, width, spare = draw(rows), draw(outputs), draw(width), draw(st.integers(0, 5))
    shapes = (rows, width), (outputs, width), (rows, outputs)
    return [random.standard_normal((n, k + spare), np.float32)[:, :k] for n, k in shapes]


ALPHAS, BETAS = st.sampled_from([1.0, -0.5]), st.sampled_from([0.0, 1.0, 0.25])


@given(
    arrays=operands(
        st.integers(1, 32), st.one_of(st.integers(32, 90), st.integers(2000, 2100)), st.integers(32, 80)
    ),
    alpha=ALPHAS,
    beta=BETAS,
    threads=st.integers(1, 4),
)
def test_product_with_few_rows_and_a_transposed_matrix_equals_numpys(library, arrays, alpha, beta, threads):
    x, weight, y = arrays
    most = library.vestal_most_rows()  # fewer on processors with AVX-512
    _check(library, x[:most], weight, weight.T, y[:most], alpha, beta, TRANSPOSED, threads)


@given(
    arrays=operands(st.integers(1, 3), st.integers(32, 256), st.integers(32, 300)),
    alpha=ALPHAS,
    beta=BETAS,
)
def test_product_with_few_rows_and_an_untransposed_matrix_equals_numpys(library, arrays, alpha, beta):
    x, transposed, y = arrays
    spare = np.zeros((transposed.shape[1], transposed.shape[0] + 3), np.float32)
    weight = spare[:, :-3]
    weight[:] = transposed.T
    _check(library, x, weight, weight, y, alpha, beta, AS_IT_IS)


def _check(library, x, weight, factor, y, alpha, beta, transposed, threads=1):
    """Compute `y`, and compare it with `alpha x factor + beta y`. What lies beyond its columns must stay."""
    wanted = alpha * (x.astype(np.float64) @ factor) + (beta * y if beta else 0)
    whole = y if y.base is None else y.base
    beyond = whole[:, y.shape[1] :].copy()
    if not beta:
        y[:] = np.nan  # BLAS does not read the result then
    products = Products(library)
    products.threads = threads
    products(x, weight, y, alpha, beta, transposed)
    assert products.passed_on == 0
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(whole[:, y.shape[1] :], beyond)


def test_matrix_products_computed_by_several_threads_at_once_are_all_correct(library):
    random, products = np.random.default_rng(0), Products(library)
    products.threads = 3
    weights = [random.standard_normal((3000, 64), np.float32) for _ in range(4)]

    def multiply_often(weight: np.ndarray) -> None:
        for rows in range(1, most + 1):
            x, y = random_rows[rows - 1], np.zeros((rows, 3000), np.float32)
            products(x, weight, y)
            np.testing.assert_allclose(y, x.astype(np.float64) @ weight.T, rtol=1e-4, atol=1e-4)

    most = library.vestal_most_rows()
    random_rows = [random.standard_normal((rows, 64), np.float32) for rows in range(1, most + 1)]
    with ThreadPoolExecutor(len(weights)) as pool:
        for done in [pool.submit(multiply_often, weight) for weight in weights]:
            done.result(timeout=60)


def test_helper_threads_use_almost_no_cpu_while_no_matrix_product_is_computed(library):
    products = Products(library)
    products.threads = 4
    x, weight, y = (np.ones(shape, np.float32) for shape in ((1, 64), (3000, 64), (1, 3000)))
    for _ in range(20):
        products(x, weight, y)
        time.sleep(0.001)
    used_s = []
    for _ in range(3):
        before_s = time.process_time()
        time.sleep(0.3)
        used_s.append(time.process_time() - before_s)
        if used_s[-1] < 0.1:
            break  # else another thread of this process may have computed something
    assert min(used_s) < 0.1
    products(x, weight, y)
    assert (y == 64).all()


@pytest.mark.parametrize(
    ("rows", "outputs", "width", "threads", "transposed"),
    [
        (33, 64, 64, 1, TRANSPOSED),
        (33, 64, 64, 2, TRANSPOSED),
        (1, 31, 64, 1, TRANSPOSED),
        (1, 64, 31, 1, TRANSPOSED),
        (4, 64, 64, 1, AS_IT_IS),
        (1, 31, 64, 1, AS_IT_IS),
        (1, 64, 31, 1, AS_IT_IS),
        (1, 257, 64, 1, AS_IT_IS),
    ],
)
def test_matrix_product_of_a_shape_that_our_library_does_not_support_is_left_to_openblas(
    library, rows, outputs, width, threads, transposed
):
    products = Products(library)
    products.threads = threads
    y = np.zeros((rows, outputs), np.float32)
    x, weight = np.ones((rows, width), np.float32), np.ones((outputs, width), np.float32)
    if transposed == AS_IT_IS:
        weight = np.ones((width, outputs), np.float32)
    products(x, weight, y, transposed=transposed)
    assert products.passed_on == 1 and not y.any()


def test_library_for_narrow_products_is_built_once_for_each_kind_of_processor(tmp_path, monkeypatch):
    built = narrow_library([tmp_path])
    assert built is not None and list(tmp_path.iterdir()) == [built], "nothing temporary is left"
    monkeypatch.setattr(narrow_products, "_COMPILERS", ())
    assert narrow_library([tmp_path]) == built
    monkeypatch.setattr(narrow_products, "_processor", lambda: ["model name: another"])
    assert narrow_library([tmp_path]) is None, "a copied folder brings no instructions from elsewhere"


def test_library_for_narrow_products_that_cannot_be_built_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    assert narrow_library([tmp_path / "a file"]) is None
    monkeypatch.setattr(narrow_products, "_OPTIONS", ("-no-such-option",))
    assert narrow_library([tmp_path / "blas"]) is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="there is no package for it")
def test_openblas_library_of_the_installed_package_is_found():
    assert openblas.packaged_library() is not None
