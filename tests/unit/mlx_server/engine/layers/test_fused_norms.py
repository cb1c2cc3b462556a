"""RMSNorm in three operations computes exactly what MLX's own does."""

from __future__ import annotations

import platform

import pytest

mx = pytest.importorskip("mlx.core")

import mlx.nn as nn  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mlx_server.engine.layers import fused_norms  # noqa: E402
from mlx_server.engine.layers.fused_norms import MOST_NUMBERS, FusedRMSNorm, use_fused_norms  # noqa: E402

IS_EXACT = platform.machine() in ("x86_64", "AMD64")  # other compilers may round a product and a sum at once


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(fused_norms, "computes_on_gpu", lambda: False)


def pair(width: int, eps: float) -> tuple[nn.RMSNorm, nn.RMSNorm]:
    """Return a fused norm and MLX's own, with the same weights."""
    own, fused = nn.RMSNorm(width, eps), nn.RMSNorm(width, eps)
    own.weight = fused.weight = mx.random.normal((width,))
    use_fused_norms(fused)
    assert type(fused) is FusedRMSNorm
    return fused, own


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 700),
    st.sampled_from([1e-5, 1e-6, 0.5]),
    st.sampled_from([0.0, 1e-30, 1.0, 1e18]),
    st.integers(0, 5),
)
def test_fused_norm_gives_the_same_numbers_as_mlx_bit_for_bit(rows, tokens, width, eps, size, seed):
    mx.random.seed(seed)
    fused, own = pair(width, eps)
    x = size * mx.random.normal((rows, tokens, width))
    mine, theirs = fused(x), own(x)
    if IS_EXACT:
        assert mx.array_equal(mine, theirs, equal_nan=True).item()
    else:
        assert mx.allclose(mine, theirs, rtol=1e-6, equal_nan=True).item()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_fused_norm_of_half_precision_numbers_has_their_type_and_the_values_of_mlx(dtype):
    fused, own = pair(8, 1e-5)
    fused.weight = own.weight = own.weight.astype(dtype)
    x = mx.random.normal((2, 1, 8)).astype(dtype)
    assert fused(x).dtype == own(x).dtype == dtype
    assert mx.array_equal(fused(x), own(x)).item()


def test_norm_of_many_numbers_is_left_to_mlx(monkeypatch):
    fused, own = pair(8, 1e-5)
    monkeypatch.setattr(fused_norms, "_normalized", lambda *_: pytest.fail("too many numbers"))
    x = mx.random.normal((1, MOST_NUMBERS // 8 + 1, 8))
    assert mx.array_equal(fused(x), own(x)).item()


def test_norm_of_another_class_and_norms_on_a_gpu_are_not_replaced(monkeypatch):
    class OtherNorm(nn.RMSNorm):
        pass

    other, plain = OtherNorm(8), nn.RMSNorm(8)
    use_fused_norms(other)
    monkeypatch.setattr(fused_norms, "computes_on_gpu", lambda: True)
    use_fused_norms(plain)
    assert type(other) is OtherNorm and type(plain) is nn.RMSNorm
