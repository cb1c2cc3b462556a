"""Keys are equal for the same prefix of the same model, and differ otherwise."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, length_of, parent_of

KEYS = PrefixKeys("model", block_tokens=4)
TOKENS = st.lists(st.integers(0, 3), max_size=20)


@given(TOKENS, TOKENS)
def test_cache_keys_are_equal_as_far_as_the_tokens_are_equal(one, other):
    for at, (a, b) in enumerate(zip(KEYS.of_blocks(one), KEYS.of_blocks(other), strict=False), start=1):
        assert (a == b) == (one[: at * 4] == other[: at * 4])


@given(TOKENS, st.integers(0, 5))
def test_cache_keys_continued_from_known_keys_equal_keys_computed_at_once(tokens, known):
    whole = KEYS.of_blocks(tokens)
    assert KEYS.of_blocks(tokens, whole[:known]) == whole


@given(st.lists(st.integers(0, 9), min_size=8, max_size=20))
def test_parent_of_a_cache_key_is_the_key_before_it(tokens):
    keys = KEYS.of_blocks(tokens)
    assert parent_of(keys[0]) == as_parent(KEYS.root)
    for before, key in zip(keys, keys[1:], strict=False):
        assert parent_of(key) == as_parent(before)
        assert length_of(key) == 0


def test_cache_keys_differ_by_model_identity_and_block_length():
    tokens = list(range(8))
    others = [PrefixKeys("model2", 4), PrefixKeys("model", 8), PrefixKeys("mode", 4)]
    keys = {key for prefixes in [KEYS, *others] for key in prefixes.of_blocks(tokens)}
    assert len(keys) == 2 + 2 + 1 + 2
    assert len({prefixes.snapshots for prefixes in [KEYS, *others]}) == 4


@given(TOKENS, st.sets(st.integers(0, 25)))
def test_cache_snapshot_keys_computed_for_many_lengths_equal_keys_for_single_lengths(tokens, lengths):
    fitting = sorted((length for length in lengths if length <= len(tokens)), reverse=True)
    keys = KEYS.of_snapshots(tokens, lengths)
    assert keys == [KEYS.of_snapshots(tokens[:length], [length])[0] for length in fitting]
    assert [length_of(key) for key in keys] == fitting
    assert all(parent_of(key) == KEYS.snapshots for key in keys)


def test_cache_keys_distinguish_tokens_whose_digits_join_to_the_same_text():
    assert KEYS.of_snapshots([1, 23], [2]) != KEYS.of_snapshots([12, 3], [2])
    assert KEYS.of_blocks([1, 2, 3, 45]) != KEYS.of_blocks([1, 2, 34, 5])


def test_cache_keys_accept_any_integer_token_and_a_malformed_key_has_length_zero():
    assert len(KEYS.of_blocks([10**40, -1, 2**64, 0])) == 1
    assert length_of("no key of ours") == length_of("a-x-b") == 0
