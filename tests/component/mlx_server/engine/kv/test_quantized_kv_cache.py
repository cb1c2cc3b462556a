"""A batch of quantized caches is compared with mlx-lm's own cache for each request, on random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

mx = pytest.importorskip("mlx.core")

from mlx.utils import tree_flatten, tree_map  # noqa: E402
from mlx_lm.models.base import scaled_dot_product_attention  # noqa: E402
from mlx_lm.models.cache import QuantizedKVCache  # noqa: E402

from mlx_server.engine.kv.quantized_kv_cache import QuantizedRequestKV  # noqa: E402

HEADS, WIDTH, VALUE_WIDTH, GROUP_SIZE = 2, 64, 32, 32


def numbers(seed: int, rows: int, tokens: int, width: int = WIDTH) -> Any:
    return mx.random.normal((rows, HEADS, tokens, width), key=mx.random.key(seed))


def arrays(state: Any) -> list[np.ndarray]:
    return [np.array(array) for _, array in tree_flatten(state)]


class Requests:
    """A batch, and for each of its requests a cache of its own that receives the same numbers."""

    def __init__(self, bits: int, lengths: list[int], seed: int, value_width: int = VALUE_WIDTH) -> None:
        self.value_width = value_width
        self.alone, rows = [], []
        for at, length in enumerate(lengths):
            own, row = QuantizedKVCache(GROUP_SIZE, bits), QuantizedRequestKV(GROUP_SIZE, bits)
            if length:
                keys, values = self.tokens(seed + at, 1, length)
                own.update_and_fetch(keys, values)
                row.update_and_fetch(keys, values)
            self.alone.append(own)
            rows.append(row)
        self.batch = rows[0].merge(rows)

    def tokens(self, seed: int, rows: int, tokens: int) -> tuple[Any, Any]:
        return numbers(seed, rows, tokens), numbers(seed + 1000, rows, tokens, self.value_width)

    def update(self, seed: int, lengths: list[int]) -> None:
        """Append tokens to all, padded on the right if their numbers differ, as for the steps of prompts."""
        longest = max(lengths)
        keys, values = self.tokens(seed, len(self.alone), longest)
        if min(lengths) < longest:
            self.batch.prepare(lengths=lengths, right_padding=[longest - length for length in lengths])
        self.batch.update_and_fetch(keys, values)
        self.batch.finalize()
        for row, (own, length) in enumerate(zip(self.alone, lengths, strict=True)):
            if length:
                own.update_and_fetch(keys[row : row + 1, :, :length], values[row : row + 1, :, :length])

    def filter(self, keep: list[int]) -> None:
        self.batch.filter(keep)
        self.alone = [self.alone[row] for row in keep]

    def extend(self, other: Requests) -> None:
        self.batch.extend(other.batch)
        self.alone += other.alone

    def trim(self, tokens: int) -> None:
        assert self.batch.trim(tokens) == tokens
        for own in self.alone:
            own.trim(tokens)

    def check(self) -> None:
        """Assert that each row of the batch equals the request's own cache bit by bit."""
        assert self.batch.offset.tolist() == [own.offset for own in self.alone]
        assert min(self.batch.left_padding.tolist()) >= 0
        for row, own in enumerate(self.alone):
            extracted = self.batch.extract(row)
            assert (extracted.offset, extracted.bits, extracted.group_size) == (
                own.offset,
                own.bits,
                own.group_size,
            )
            if own.offset:
                expected = tree_map(lambda x, to=own.offset: x[..., :to, :], (own.keys, own.values))
                for one, other in zip(
                    arrays((extracted.keys, extracted.values)), arrays(expected), strict=True
                ):
                    np.testing.assert_array_equal(one, other)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 300)),
        st.tuples(st.just("ragged"), st.lists(st.integers(1, 20), min_size=6, max_size=6)),
        st.tuples(st.just("filter"), st.integers(1, 63)),
        st.tuples(st.just("extend"), st.lists(st.integers(0, 40), min_size=1, max_size=2)),
        st.tuples(st.just("trim"), st.integers(0, 5)),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([4, 8]), lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4), steps=steps
)
def test_quantized_kv_batch_after_any_operations_equals_separate_caches_of_its_requests(bits, lengths, steps):
    requests = Requests(bits, lengths, seed=1)
    for number, (what, how) in enumerate(steps):
        seed, rows = 100 * (number + 1), len(requests.alone)
        match what:
            case "update":
                requests.update(seed, [how] * rows)
            case "ragged":
                requests.update(seed, [how[row % len(how)] for row in range(rows)])
            case "filter":
                requests.filter([row for row in range(rows) if how >> row & 1] or [rows - 1])
            case "extend":
                requests.extend(Requests(bits, how, seed))
            case "trim":
                requests.trim(min(how, *(own.offset for own in requests.alone)))
        requests.check()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("query_heads", [HEADS, 3 * HEADS])
def test_quantized_kv_attention_in_a_batch_equals_attention_for_a_single_request(bits, query_heads):
    requests = Requests(bits, [7, 0, 30], seed=5, value_width=WIDTH)  # mlx-lm's attention needs equal widths
    for step, tokens in enumerate((4, 1)):  # a step of a prompt; a token of an answer
        queries = mx.random.normal((3, query_heads, tokens, WIDTH), key=mx.random.key(step))
        mask = requests.batch.make_mask(tokens)
        keys, values = requests.tokens(50 + step, 3, tokens)
        stored = requests.batch.update_and_fetch(keys, values)
        assert hasattr(requests.batch, "bits") == (tokens == 1)
        # A copy of the queries, because mlx-lm's attention scales them in place.
        found = scaled_dot_product_attention(queries[:], *stored, requests.batch, WIDTH**-0.5, mask)
        for row, own in enumerate(requests.alone):
            mine = own.update_and_fetch(keys[row : row + 1], values[row : row + 1])
            plain = [mx.dequantize(*triple, group_size=GROUP_SIZE, bits=bits) for triple in mine]
            alone = mx.fast.scaled_dot_product_attention(
                queries[row : row + 1], *plain, scale=WIDTH**-0.5, mask="causal"
            )
            np.testing.assert_allclose(found[row : row + 1], alone, atol=1e-5)


def test_quantized_kv_nbytes_counts_all_arrays_and_is_zero_for_an_empty_batch():
    empty = QuantizedRequestKV(GROUP_SIZE, 8)
    assert (empty.nbytes, empty.merge([empty, empty]).nbytes) == (0, 0)
    batch = Requests(4, [10, 256], seed=3).batch
    row_of_words = (WIDTH + VALUE_WIDTH) * 4 // 32 + 2 * (WIDTH + VALUE_WIDTH) // GROUP_SIZE
    assert batch.nbytes == 2 * HEADS * 256 * row_of_words * 4
