"""Layers that share the angles of rotary positions compute exactly what MLX's own operation does."""

from __future__ import annotations

import platform

import pytest

mx = pytest.importorskip("mlx.core")

import mlx.nn as nn  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mlx_server.engine.kv.grouped_kv import share_offsets  # noqa: E402
from mlx_server.engine.kv.kv_cache import BatchKV, RequestKV  # noqa: E402
from mlx_server.engine.layers import shared_rotations  # noqa: E402
from mlx_server.engine.layers.shared_rotations import SharedRotation, share_rotations  # noqa: E402

IS_EXACT = platform.machine() in ("x86_64", "AMD64")  # other compilers may round a product and a sum at once


class Layers(nn.Module):
    def __init__(self, *rotations: nn.Module) -> None:
        super().__init__()
        self.rotations = list(rotations)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(shared_rotations, "computes_on_gpu", lambda: False)


@pytest.fixture(autouse=True)
def same_numbers_in_each_run() -> None:
    mx.random.seed(1)  # MLX begins with a seed of the time


def shared(dims: int, base: float = 10_000.0, scale: float = 1.0) -> nn.RoPE:
    model = Layers(nn.RoPE(dims, base=base, scale=scale))
    share_rotations(model)
    (rotation,) = model.rotations
    assert type(rotation) is SharedRotation
    return rotation


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([2, 8, 64]),
    st.sampled_from([10_000.0, 500_000.0, 3.0]),
    st.sampled_from([1.0, 0.25]),
    st.integers(1, 5),
    st.one_of(st.integers(0, 9_000), st.lists(st.integers(-5, 9_000), min_size=1, max_size=4)),
)
def test_rotary_embedding_with_shared_angles_gives_the_same_numbers_as_mlx_bit_for_bit(
    dims, base, scale, tokens, offset
):
    rows = len(offset) if isinstance(offset, list) else 2
    at = mx.array(offset) if isinstance(offset, list) else offset
    x = mx.random.normal((rows, 3, tokens, dims))
    mine, own = shared(dims, base, scale)(x, at), nn.RoPE(dims, base=base, scale=scale)(x, at)
    assert mx.array_equal(mine, own).item() or not IS_EXACT and mx.allclose(mine, own, rtol=1e-6).item()


def test_shared_rotary_angles_are_not_reused_for_other_positions_or_bases():
    rotation, other = shared(8), shared(8, base=3.0)
    x = mx.random.normal((1, 2, 1, 8))
    for offset in (3, 4, mx.array([3]), mx.array([4]), 3):
        for layer in (rotation, other, rotation):
            own = nn.RoPE(8, base=layer.base)(x, offset)
            assert mx.array_equal(layer(x, offset), own).item()


def test_layers_of_one_step_compute_their_shared_rotary_angles_once(monkeypatch):
    computed = []
    real = shared_rotations._computed

    def counted(*of):
        computed.append(of)
        return real(*of)

    monkeypatch.setattr(shared_rotations, "_computed", counted)
    caches = [BatchKV([0, 2]) for _ in range(4)]
    rotation, x = shared(8), mx.random.normal((2, 3, 1, 8))
    for step in range(3):
        share_offsets(caches)
        for cache in caches:
            before = cache.offset
            for _ in range(2):  # queries and keys
                rotation(x, cache.offset)
            cache.update_and_fetch(x, x)
            assert before is not cache.offset, "a shared array must not be changed in place"
        assert len(computed) == step + 1
        assert [cache.offset.tolist() for cache in caches] == [[step + 1, step - 1]] * 4


@pytest.mark.parametrize("change", ["extend", "filter", "drop"])
def test_kv_caches_of_all_layers_share_one_position_array_with_unaltered_values_after_a_batch_change(change):
    caches = [BatchKV([0, 2]) for _ in range(3)]
    keys = mx.zeros((2, 1, 4, 8))
    share_offsets(caches)
    for cache in caches:
        cache.update_and_fetch(keys, keys)
        if change == "filter":
            cache.filter([1])
        elif change == "drop":
            cache.drop_last([1, 2])
        else:
            joining = RequestKV()
            joining.update_and_fetch(keys[:1], keys[:1])
            cache.extend(RequestKV.merge([joining]))
    before = [cache.offset.tolist() for cache in caches]
    share_offsets(caches)
    assert [cache.offset.tolist() for cache in caches] == before
    assert all(cache.offset is caches[0].offset for cache in caches)


def test_sharing_token_positions_among_kv_caches_does_nothing_unless_all_are_batch_caches():
    caches = [RequestKV(), RequestKV()]
    caches[0].offset = 3
    share_offsets(caches)
    assert [cache.offset for cache in caches] == [3, 0]
    share_offsets([])


def test_rotary_embedding_that_is_traditional_or_partial_or_in_float16_is_computed_by_mlx():
    part, pairs = nn.RoPE(4), nn.RoPE(8, traditional=True)
    share_rotations(Layers(part, pairs))
    assert type(pairs) is nn.RoPE
    x = mx.random.normal((1, 2, 3, 8))
    assert mx.array_equal(part(x, 5), nn.RoPE(4)(x, 5)).item()
    half = mx.random.normal((1, 2, 3, 4)).astype(mx.float16)
    assert part(half, 5).dtype == mx.float16


def test_rotary_embedding_of_many_numbers_is_computed_by_separate_operations(monkeypatch):
    x = mx.random.normal((1, 2, shared_rotations.MOST_NUMBERS_AT_ONCE // 16 + 1, 8))
    monkeypatch.setattr(shared_rotations, "_rotated_at_once", lambda *_: pytest.fail("too many numbers"))
    assert mx.array_equal(shared(8)(x, 3), nn.RoPE(8)(x, 3)).item()
