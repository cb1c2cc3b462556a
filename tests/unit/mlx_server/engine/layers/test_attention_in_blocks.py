"""Attention in blocks equals MLX's own, for every mask, and is not used where it gains nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mlx_lm.models.base import create_causal_mask, scaled_dot_product_attention  # noqa: E402

from mlx_server.engine.layers import attention_in_blocks  # noqa: E402
from mlx_server.engine.layers.attention import ATTENTION  # noqa: E402
from mlx_server.engine.layers.attention_in_blocks import (  # noqa: E402
    FEWEST_SCORES_OF_A_STEP,
    attention,
)
from mlx_server.engine.layers.visible_keys import VisibleKeys  # noqa: E402


@pytest.fixture
def small_blocks(monkeypatch):
    """Compute everything in blocks, of a few scores each."""
    monkeypatch.setattr(attention_in_blocks, "FEWEST_SCORES", 0)
    monkeypatch.setattr(attention_in_blocks, "SCORES_IN_BLOCK", 100)


@pytest.fixture(autouse=True)
def same_numbers_in_each_run() -> None:
    mx.random.seed(1)  # MLX begins with a seed of the time


def masks(rows: int, queries: int, keys: int) -> st.SearchStrategy:
    """Draw masks as mlx-lm makes them: none, causal, with a window, with padding on the left, and any."""
    own = keys - queries
    padding = st.lists(st.integers(0, own), min_size=rows, max_size=rows)
    any_mask = st.lists(st.booleans(), min_size=queries * keys, max_size=queries * keys)
    return st.one_of(
        st.sampled_from([None, "causal"]),
        st.integers(1, keys).map(lambda size: create_causal_mask(queries, own, window_size=size)),
        padding.map(lambda left: create_causal_mask(queries, own, left_padding=mx.array(left))),
        any_mask.map(lambda seen: mx.array(seen).reshape(1, 1, queries, keys) | _own(queries, keys)),
    )


def _own(queries: int, keys: int) -> Any:
    """Let each query see one key, since attention without any key is not defined."""
    return mx.arange(keys) == mx.arange(keys - queries, keys)[:, None]


@st.composite
def calls(draw):
    rows, groups, of_group = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    queries, cached = draw(st.integers(1, 12)), draw(st.integers(0, 30))
    keys = queries + cached
    sinks = draw(st.booleans())
    mx.random.seed(draw(st.integers(0, 1000)))
    q = mx.random.normal((rows, groups * of_group, queries, 8))
    # As in a cache, whose capacity is larger than what is in use.
    k, v = (mx.random.normal((rows, groups, keys + 9, width))[:, :, :keys] for width in (8, 16))
    options = {"sinks": mx.random.normal((groups * of_group,))} if sinks else {}
    return (q, k, v, None), {"scale": 0.3, "mask": draw(masks(rows, queries, keys))} | options


@settings(deadline=None, max_examples=150)
@given(call=calls(), at_once=st.integers(1, 2000))
def test_attention_in_blocks_gives_the_numbers_of_mlx_for_any_mask_and_block_size(call, at_once):
    arrays, options = call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_in_blocks, "FEWEST_SCORES", 0)
        patch.setattr(attention_in_blocks, "FEWEST_SCORES_OF_A_STEP", 0)
        patch.setattr(attention_in_blocks, "SCORES_IN_BLOCK", at_once)
        found = attention(*arrays, **options)
    wanted = scaled_dot_product_attention(*arrays, **options)
    assert found.shape == wanted.shape
    assert mx.allclose(found, wanted, atol=2e-6).item()


def test_attention_in_blocks_of_a_query_that_sees_no_key_gives_finite_numbers(small_blocks):
    q, k, v = (mx.random.normal((2, 2, 4, 8)) for _ in range(3))
    mask = mx.array([True, False])[:, None, None, None] & (mx.arange(4) >= 0)
    assert np.isfinite(np.array(attention(q, k, v, None, 1.0, mask))).all()


def test_attention_in_blocks_with_a_new_mask_does_not_reuse_the_previous_mask(small_blocks):
    q, k, v = (mx.random.normal((1, 2, 4, 8)) for _ in range(3))
    for seed in range(3):
        mx.random.seed(seed)
        mask = (mx.random.uniform(shape=(1, 1, 4, 4)) > 0.5) | _own(4, 4)
        for _layer in range(2):
            wanted = scaled_dot_product_attention(q, k, v, None, 1.0, mask)
            assert mx.allclose(attention(q, k, v, None, 1.0, mask), wanted, atol=2e-6).item()


def test_mask_of_each_group_is_read_only_once_and_a_large_mask_displaces_the_cached_masks(monkeypatch):
    attention_in_blocks._recent.clear()
    masks = [mx.ones((1, 1, 2, keys)) > 0 for keys in (5, 6, 7)]
    found = [attention_in_blocks._visible(mask, 2, mask.shape[-1]) for mask in masks]
    again = [attention_in_blocks._visible(mask, 2, mask.shape[-1]) for mask in masks]
    assert all(one is other for one, other in zip(found, again, strict=True))
    monkeypatch.setattr(attention_in_blocks, "_MOST_CACHED", 30)
    attention_in_blocks._visible(mx.ones((1, 1, 4, 9)) > 0, 4, 9)
    assert [numbers for _, numbers, _ in attention_in_blocks._recent] == [(4, 9)]


def test_attention_in_blocks_skips_keys_that_no_query_of_a_block_sees():
    causal = np.tri(6, 9, 3, dtype=np.bool_)[None]
    blocks = VisibleKeys(causal).blocks(0, at_once=2)
    assert [(block.first_key, block.last_key) for block in blocks] == [(0, 5), (0, 7), (0, 9)]
    assert [block.first_hidden for block in blocks] == [4, 6, 8]  # all see what comes before


@pytest.mark.parametrize("case", ["few scores", "bfloat16", "added mask", "mask for each head", "quantized"])
@pytest.mark.parametrize(("many_queries", "many_keys"), [(200, 200), (1, FEWEST_SCORES_OF_A_STEP)])
def test_attention_calls_that_would_gain_nothing_are_left_to_mlx_lm(
    monkeypatch, case, many_queries, many_keys
):
    left: list[object] = []
    monkeypatch.setattr(
        attention_in_blocks, "scaled_dot_product_attention", lambda *arguments: left.append(arguments)
    )
    queries = min(many_queries, 2) if case == "few scores" else many_queries
    keys = 200 if case == "few scores" else many_keys
    q, k, v = mx.zeros((1, 2, queries, 8)), mx.zeros((1, 2, keys, 8)), mx.zeros((1, 2, keys, 8))
    if case == "bfloat16":
        q, k, v = (x.astype(mx.bfloat16) for x in (q, k, v))
    mask = {"added mask": mx.zeros((queries, keys)), "mask for each head": mx.ones((1, 2, queries, keys)) > 0}
    cache = SimpleNamespace(bits=4) if case == "quantized" else None
    attention(q, k, v, cache, 1.0, mask.get(case))
    assert len(left) == 1


def test_large_attention_calls_are_computed_in_blocks(monkeypatch):
    monkeypatch.setattr(attention_in_blocks, ATTENTION, None)
    q = mx.zeros((1, 2, 200, 8))
    assert attention(q, q, q, None, 1.0, "causal").shape == q.shape
