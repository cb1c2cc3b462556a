"""Which groups of rows of a key-value cache are copied into one array."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.kv.groups_to_join import CHEAP_TOKENS, MOST_GROUPS, pair_to_join

groups = st.lists(st.tuples(st.integers(1, 16), st.integers(1, 9000)), max_size=12)


@pytest.mark.parametrize(
    ("sizes", "first"),
    [
        ([], None),
        ([(1, 100)], None),
        ([(4, 100), (1, 200)], 0),
        ([(4, 100), (1, 6000)], None),  # five rows of 6,000 tokens would be copied, and attended to
        ([(1, 6000), (1, 6000)], None),  # no room would be lost, but copying takes long
        ([(1, 6000), (1, 100), (2, 50)], 1),
        ([(1, 9000 + i) for i in range(MOST_GROUPS)], None),
        ([(1, 9000), (1, 8000), (1, 7000), (1, 7000), *[(2, 9000)] * (MOST_GROUPS - 3)], 2),
    ],
)
def test_neighboring_groups_are_joined_if_they_take_little_room_or_are_too_many(sizes, first):
    assert pair_to_join(sizes) == first


@given(groups)
def test_joining_groups_ends_with_few_groups_and_copies_large_ones_only_if_they_are_too_many(sizes):
    while (first := pair_to_join(sizes)) is not None:
        (rows, tokens), (more_rows, more_tokens) = sizes[first : first + 2]
        joined = (rows + more_rows, max(tokens, more_tokens))
        assert joined[0] * joined[1] <= CHEAP_TOKENS or len(sizes) > MOST_GROUPS
        sizes = [*sizes[:first], joined, *sizes[first + 2 :]]
    assert len(sizes) <= MOST_GROUPS
