"""SwiGLU computed by a polynomial or by numpy equals the exact one, and mlx-lm's where neither is used."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mlx_lm.models import activations, llama  # noqa: E402

from mlx_server.engine.layers import fast_activations  # noqa: E402
from mlx_server.engine.layers.fast_activations import SWIGLU, swiglu, use_fast_activations  # noqa: E402

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
PAIRS = st.tuples(st.floats(-100, 100, width=32), st.floats(-8, 8, width=32))


@pytest.fixture(autouse=True)
def any_number_of_numbers(monkeypatch):
    monkeypatch.setattr(fast_activations, "FEWEST_NUMBERS", 0)
    monkeypatch.setattr(fast_activations, "FEWEST_NUMBERS_OF_A_PROMPT", 0)


def exact(gate: float, x: float) -> float:
    return gate / (1 + math.exp(-gate)) * x if gate > -700 else 0.0


@settings(deadline=None, max_examples=200)
@given(st.lists(PAIRS, min_size=1, max_size=40))
@example([(0.0, 1.0), (-0.0, 1.0), (1e-30, 1.0), (-1e-30, 1.0), (86.0, 2.0), (-86.0, 2.0)])
def test_swiglu_has_a_relative_error_below_4e_7_for_one_token_and_for_several(pairs):
    gates, xs = (np.array(each, np.float32) for each in zip(*pairs, strict=True))
    wanted = [exact(float(gate), float(x)) for gate, x in zip(gates, xs, strict=True)]
    for shape in ((1, -1), (-1, 1)):
        found = np.array(swiglu(mx.array(gates.reshape(shape)), mx.array(xs.reshape(shape))), np.float64)
        assert found.shape == gates.reshape(shape).shape
        np.testing.assert_allclose(found.reshape(-1), wanted, rtol=4e-7, atol=1e-33)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_swiglu_in_blocks_gives_the_numbers_of_mlx_lm_for_any_shape_and_layout(
    rows, tokens, numbers, in_block, is_swapped
):
    mx.random.seed(rows * tokens * numbers)
    gate, x = (mx.random.normal((rows, numbers, tokens)).swapaxes(1, 2) for _ in range(2))
    if not is_swapped:
        gate, x = mx.contiguous(gate), mx.contiguous(x)
    before, wanted = mx.array(gate), activations.swiglu(gate, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_activations, "_NUMBERS_IN_BLOCK", in_block)
        found = swiglu(gate, x)
    assert mx.allclose(found, wanted, rtol=1e-5, atol=1e-7).item()
    assert mx.array_equal(gate, before).item()


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_swiglu_of_finite_numbers_is_finite(gates):
    found = np.array(swiglu(mx.array(np.array(gates, np.float32)), mx.ones(len(gates))))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("gate", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tokens", [1, 2])
def test_swiglu_of_damaged_numbers_is_not_finite(gate, tokens):
    """The engine finds damaged weights by such results."""
    assert not np.isfinite(np.array(swiglu(mx.array([[gate]] * tokens), mx.ones((tokens, 1))))).any()


def test_swiglu_of_half_precision_numbers_is_computed_by_mlx_lm():
    gate, x = mx.array([0.5, -3.0], mx.bfloat16), mx.array([2.0, 1.5], mx.bfloat16)
    found = swiglu(gate, x)
    assert found.dtype == mx.bfloat16
    assert mx.array_equal(found, activations.swiglu(gate, x))


def test_swiglu_of_few_numbers_is_computed_by_mlx_lm(monkeypatch):
    monkeypatch.setattr(fast_activations, "FEWEST_NUMBERS", 3)
    gate, x = mx.array([0.5, -3.0]), mx.array([2.0, 1.5])
    assert mx.array_equal(swiglu(gate, x), activations.swiglu(gate, x))


def test_swiglu_of_many_tokens_in_a_layer_of_experts_allocates_no_array_of_factors(monkeypatch):
    monkeypatch.setattr(fast_activations, "MOST_NUMBERS_OF_A_STEP", 6)
    monkeypatch.delattr(fast_activations, "exponential_factors")
    gate, x = mx.random.normal((2, 3, 1, 1)), mx.random.normal((2, 3, 1, 1))
    assert mx.allclose(swiglu(gate, x), activations.swiglu(gate, x), rtol=1e-5)


def test_swiglu_function_of_mlx_lm_itself_is_never_replaced():
    """GPT-OSS has a layer in the module of that function, which our own function calls for few numbers."""
    before = activations.swiglu
    use_fast_activations(SimpleNamespace(modules=lambda: [activations.SwigluOAI()]))
    assert activations.swiglu is before is not swiglu


@pytest.mark.parametrize("on_gpu", [False, True])
def test_swiglu_function_of_a_model_family_is_replaced_only_on_a_cpu(monkeypatch, on_gpu):
    monkeypatch.setattr(fast_activations, "computes_on_gpu", lambda: on_gpu)
    monkeypatch.setattr(llama, SWIGLU, activations.swiglu)
    layers = [llama.MLP.__new__(llama.MLP)]
    use_fast_activations(SimpleNamespace(modules=lambda: layers))
    assert llama.swiglu is (activations.swiglu if on_gpu else swiglu)
