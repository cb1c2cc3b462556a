"""Blocks: cutting a sequence into blocks and joining them again changes nothing."""

import numpy as np
import pytest

from mlx_server.engine.prompt_cache.block import Block, BlockRun, block_of, common_prefix_length


def block(tokens: int) -> Block:
    group = np.arange(2 * 3 * tokens * 5, dtype=np.uint32).reshape(2, 3, tokens, 5)
    return Block(tuple(range(tokens)), (group,), ("F32",), (0, 0))


def test_cache_block_parts_returns_the_keys_and_values_of_all_layers_in_order():
    keys, values = np.ones((3, 4, 5), np.uint32), np.zeros((3, 4, 8), np.uint16)
    whole = block_of([1, 2, 3, 4], [keys, values, keys * 2, values], ["F32", "BF16", "F32", "BF16"])
    assert (whole.ids, whole.dtypes, whole.order) == ((1, 2, 3, 4), ("F32", "BF16"), (0, 1, 0, 1))
    parts = whole.parts()
    assert np.array_equal(parts[0], keys) and np.array_equal(parts[2], keys * 2)
    assert np.array_equal(parts[1], values) and np.array_equal(parts[3], values)


def test_run_of_cache_blocks_has_the_tokens_of_all_its_blocks():
    run = BlockRun((block(4), block(3)))
    assert (run.tokens, run.ids) == (7, (0, 1, 2, 3, 0, 1, 2))


def test_cache_blocks_are_copies_that_do_not_keep_the_source_array_alive():
    view = np.arange(3 * 8 * 5, dtype=np.uint32).reshape(3, 8, 5)[:, 2:6]
    for part in (block_of(range(4), [view, view], ["F32", "F32"]), block(8).head(4)):
        assert part.groups[0].base is None


def test_cache_block_cut_to_its_first_tokens_has_only_the_ids_and_keys_and_values_of_those_tokens():
    head = block(8).head(3)
    assert (head.tokens, head.ids) == (3, (0, 1, 2))
    assert np.array_equal(head.groups[0], block(8).groups[0][:, :, :3])


def test_cache_block_does_not_fit_a_block_of_another_shape_or_type():
    one, other = block(4), block(4)
    wider = Block(one.ids, (np.zeros((2, 3, 4, 6), np.uint32),), ("F32",), (0, 0))
    assert one.fits(other) and one.fits(block(8))
    assert not one.fits(wider)
    assert not one.fits(Block(one.ids, one.groups, ("I32",), (0, 0)))


@pytest.mark.parametrize(
    ("one", "other", "length"), [("", "abc", 0), ("abc", "abd", 2), ("ab", "abc", 2), ("xa", "ya", 0)]
)
def test_common_prefix_length_is_the_number_of_equal_first_tokens(one, other, length):
    assert common_prefix_length([*map(ord, one)], [*map(ord, other)]) == length
