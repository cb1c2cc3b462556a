"""Softmax and log-sum-exp by a polynomial equal the exact ones, and MLX's where it is not used."""

from __future__ import annotations

import math

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mlx_server.engine import fast_exponential  # noqa: E402
from mlx_server.engine.fast_exponential import logsumexp, softmax  # noqa: E402

NUMBERS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50)
HIDDEN = float(np.finfo(np.float32).min)


def exact(numbers: list[float]) -> tuple[np.ndarray, float]:
    """Return the softmax and the log-sum-exp of float32 numbers, computed in float64."""
    x = np.array(numbers, np.float32).astype(np.float64)
    powers = np.exp(x - x.max())
    return powers / powers.sum(), float(x.max() + np.log(powers.sum()))


@settings(deadline=None, max_examples=200)
@given(NUMBERS)
@example([0.0])
@example([-3.0, HIDDEN, 2.0])
@example([HIDDEN, HIDDEN])
def test_softmax_and_logsumexp_by_a_polynomial_equal_the_exact_ones(numbers):
    weights, total = exact(numbers)
    x = mx.array([numbers, numbers])
    for row in np.array(softmax(x)):
        np.testing.assert_allclose(row, weights, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(np.array(logsumexp(x))[:, 0], total, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 40))
def test_logsumexp_in_parts_gives_the_shape_and_the_values_of_mlx(rows, tokens, numbers, at_once):
    x = mx.arange(rows * tokens * numbers, dtype=mx.float32).reshape(rows, tokens, numbers) / 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_exponential, "_NUMBERS_AT_ONCE", at_once)
        found = logsumexp(x)
    wanted = mx.logsumexp(x, axis=-1, keepdims=True)
    assert found.shape == wanted.shape
    assert mx.allclose(found, wanted, rtol=1e-6).item()


def test_logsumexp_leaves_out_tokens_that_a_grammar_forbids():
    found = logsumexp(mx.array([[1.0, -math.inf, 2.0, -math.inf]])).item()
    assert found == pytest.approx(math.log(math.e + math.e**2), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_softmax_and_logsumexp_of_inputs_with_nan_or_infinity_are_not_finite(bad):
    """The engine finds damaged weights by such results."""
    x = mx.array([[1.0, bad, 2.0]])
    assert not np.isfinite(np.array(softmax(x))).all()
    assert not np.isfinite(np.array(logsumexp(x))).any()


@pytest.mark.parametrize("case", ["half precision", "another axis", "without the axis"])
def test_logsumexp_of_half_precision_or_another_axis_or_without_the_axis_is_computed_by_mlx(case):
    x = mx.random.normal((3, 4)).astype(mx.bfloat16 if case == "half precision" else mx.float32)
    options = {"axis": 0 if case == "another axis" else -1, "keepdims": case != "without the axis"}
    assert mx.array_equal(logsumexp(x, **options), mx.logsumexp(x, **options))


def test_logsumexp_on_a_gpu_is_computed_by_mlx(monkeypatch):
    monkeypatch.setattr(fast_exponential, "computes_on_gpu", lambda: True)
    x = mx.random.normal((3, 400))
    assert mx.array_equal(logsumexp(x), mx.logsumexp(x, axis=-1, keepdims=True))
