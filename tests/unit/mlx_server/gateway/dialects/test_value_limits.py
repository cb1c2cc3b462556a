"""Bodies with too many values are refused before one of them becomes an object."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.dialects import value_limits
from mlx_server.gateway.dialects.value_limits import MAX_PARTS, MAX_VALUES, check_counts
from mlx_server.gateway.errors import TooLarge

HEAD = b'{"model":"m",'
FEW = b'"messages":[{"role":"user","content":"x"}]'


def many(item: bytes, count: int = 1_000_000) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


# The bodies are made in the tests: each worker imports this file.
@pytest.mark.parametrize(
    "field",
    [
        lambda: b'"messages":' + many(b"[]"),
        lambda: b'"messages":' + many(b'{"role":"user","content":"x"}', 200_000),
        lambda: FEW + b',"tools":' + many(b"{}"),
        lambda: FEW + b',"options":{"stop":' + many(b'"zz"') + b"}",
        lambda: FEW + b',"unknown":' + many(b"[]"),
        lambda: (
            b'"messages":[{"role":"user","content":' + many(b'{"type":"text","text":"x"}', 200_000) + b"}]"
        ),
        lambda: b'"input":' + many(b'"a"'),
        lambda: b'"prompt":"x","context":' + many(b"1", 2_000_000),
        lambda: b'"logit_bias":{' + b",".join(b'"%d":1' % number for number in range(300_000)) + b"}",
        lambda: b'"deep":' + b"[" * 500_000,
    ],
)
def test_refusal_of_a_body_with_too_many_values_in_any_field_names_the_limit_and_uses_little_memory(
    field: Callable[[], bytes],
):
    """Such bodies, all under 32 MB, once blocked the event loop for 1 to 4 s and took 0.5 to 1.5 GB each."""
    raw = HEAD + field() + b"}"
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge) as refused:
            check_counts(raw)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert (refused.value.status, refused.value.code) == (413, "too_large")
    assert str(refused.value.fields["max_values"]) in refused.value.message


@pytest.mark.parametrize(
    "field",
    [
        lambda: b'"prompt":"' + b'[{,:\\\\\\"}]' * 1_000_000 + b'"',
        lambda: b'"prompt":' + many(b"12345", 2**20),
        lambda: b'"messages":' + many(b'{"role":"user","content":"x"}', 20_000),
        lambda: b'"prompt":"' + b'\\"' * 2_000_000 + b'"',
    ],
)
def test_body_with_long_texts_and_prompts_of_token_ids_passes_the_check_of_value_counts(
    field: Callable[[], bytes],
):
    check_counts(HEAD + field() + b"}")


JSON_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='\\"[{,: a\u00e4', max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='\\"[x', max_size=3), inner),
    max_leaves=20,
)


def counted(value: Any) -> tuple[int, int]:
    """Return the texts, lists and objects in a value, and an upper bound of all its values."""
    if isinstance(value, list):
        inner = [counted(item) for item in value]
    elif isinstance(value, dict):
        inner = [counted(item) for item in value.values()] + [(1, 0)] * len(value)
    else:
        return int(isinstance(value, str)), 0
    return 1 + sum(parts for parts, _ in inner), max(1, len(value)) + sum(values for _, values in inner)


@given(value=JSON_VALUES, is_ascii=st.booleans(), slice_bytes=st.integers(1, 7))
def test_value_count_of_a_body_is_exact_wherever_the_body_is_split_into_slices(
    value: Any, is_ascii: bool, slice_bytes: int
):
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()
    parts, values = counted(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_limits, "_SLICE_BYTES", slice_bytes)
        for name, count in (("MAX_PARTS", parts), ("MAX_VALUES", values)):
            patch.setattr(value_limits, "MAX_PARTS", 10**9)
            patch.setattr(value_limits, "MAX_VALUES", 10**9)
            patch.setattr(value_limits, name, count)
            check_counts(raw)
            patch.setattr(value_limits, name, count - 1)
            if count:
                with pytest.raises(TooLarge):
                    check_counts(raw)


def test_limit_on_json_values_in_a_body_is_above_the_longest_allowed_prompt_of_token_ids():
    assert MAX_VALUES > 2**20
    assert MAX_PARTS < MAX_VALUES
