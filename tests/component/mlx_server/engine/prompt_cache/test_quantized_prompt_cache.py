"""Quantized keys and values in the prompt cache: restored exactly, and never under a different setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from mlx_server.engine.kv.quantized_kv_cache import QuantizedBatchKV, QuantizedRequestKV  # noqa: E402
from mlx_server.engine.prompt_cache import blob, block, mlx_arrays, snapshot  # noqa: E402
from mlx_server.engine.prompt_cache.block import BlockRun  # noqa: E402
from mlx_server.engine.prompt_cache.snapshot import Snapshot  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from mlx_server.protocol import Done  # noqa: E402
from tests.component.mlx_server.engine.conftest import Engine  # noqa: E402
from tests.component.mlx_server.engine.prompt_cache.test_prompt_cache import (  # noqa: E402
    PROSE,
    Lives,
    files,
    live,
    logged,
    terminate,
    text,
)

LAYERS, HEADS, WIDTH, GROUP_SIZE, LENGTHS = 2, 3, 64, 32, (40, 70)

__all__ = ["live"]  # a fixture


def batches(bits: int, dtype: Any) -> list[QuantizedBatchKV]:
    """Return, for each layer, a batch of two requests."""
    caches = []
    for layer in range(LAYERS):
        rows = []
        for at, length in enumerate(LENGTHS):
            row = QuantizedRequestKV(GROUP_SIZE, bits)
            key = mx.random.split(mx.random.key(10 * layer + at))
            shape = (1, HEADS, length, WIDTH)
            row.update_and_fetch(*(mx.random.normal(shape, key=one).astype(dtype) for one in key))
            rows.append(row)
        caches.append(rows[0].merge(rows))
    return caches


def raw(array: Any) -> np.ndarray:
    return np.array(array.view(mx.uint8))


def assert_same(
    restored: list[QuantizedRequestKV], caches: list[QuantizedBatchKV], row: int, tokens: int
) -> None:
    for one, cache in zip(restored, caches, strict=True):
        own = cache.extract(row)
        assert (one.offset, one.bits, one.group_size) == (tokens, own.bits, GROUP_SIZE)
        for found, kept in zip((*one.keys, *one.values), (*own.keys, *own.values), strict=True):
            assert found.dtype == kept.dtype
            np.testing.assert_array_equal(raw(found[:, :, :tokens]), raw(kept[:, :, :tokens]))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("row", [0, 1])
def test_quantized_prompt_cache_blocks_written_and_read_back_are_identical(bits, dtype, row):
    caches = batches(bits, dtype)
    assert mlx_arrays.can_be_cut(caches)
    blocks = mlx_arrays.cut(caches, row, range(32), 0, 16)
    read = []
    for one in blocks:
        facts, tensors = blob.decode(b"".join(blob.encode(*block.to_tensors(one))))
        read.append(block.from_tensors(tensors, facts))
    restored = mlx_arrays.caches_of(BlockRun(tuple(read)), KvQuantization(bits, GROUP_SIZE))
    assert_same(restored, caches, row, 32)


def test_quantized_prompt_cache_snapshot_written_and_read_back_is_identical():
    caches = batches(8, mx.float32)
    taken = mlx_arrays.snapshot(caches, 1, range(LENGTHS[1]))
    assert isinstance(taken, Snapshot)
    facts, tensors = blob.decode(b"".join(blob.encode(*snapshot.to_tensors(taken))))
    restored = mlx_arrays.caches_of(snapshot.from_tensors(tensors, facts), KvQuantization(8, GROUP_SIZE))
    assert_same(restored, caches, 1, LENGTHS[1])
    merged = restored[0].merge([restored[0], QuantizedRequestKV(GROUP_SIZE, 8)])
    assert merged.offset.tolist() == [LENGTHS[1], 0]


@pytest.mark.model
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("bits", "other_setting"),
    [("8", {"VESTAL_MLX__KV_BITS": "none"}), ("4", {"VESTAL_MLX__KV_GROUP_SIZE": "32"})],
    ids=["8-none", "4-group"],
)
def test_quantized_kv_of_a_prompt_is_restored_from_disk_only_under_the_same_setting(
    live: Lives, home: Path, bits, other_setting
):
    first: Engine = live(home, VESTAL_MLX__KV_BITS=bits)
    first.send(text("cold", PROSE))
    first.text("cold")
    first.send(text("from ram", PROSE))
    warm, usage = first.text("from ram"), first.answer("from ram", Done).usage
    assert usage.cached_tokens == usage.prompt_tokens - 1
    terminate(first)
    for path in files(home):
        facts, _ = blob.decode(path.read_bytes())
        assert (facts["kv_bits"], facts["kv_group_size"]) == (bits, "64")

    settings = {"VESTAL_MLX__KV_BITS": bits, "VESTAL_MLX__PROMPT_CACHE_DISK": "10g", **other_setting}
    other = live(home, **settings)
    other.send(text("other", PROSE, 2))
    assert other.answer("other", Done).usage.cached_tokens == 0
    assert logged(other, "cache_opened")[0]["blocks"] > 0
    terminate(other)

    second = live(home, VESTAL_MLX__KV_BITS=bits)
    second.send(text("from disk", PROSE))
    assert second.text("from disk") == warm
    assert second.answer("from disk", Done).usage.cached_tokens == usage.cached_tokens
