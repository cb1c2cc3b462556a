"""Blocks: cut and put together again they are what they were."""

import numpy as np
import pytest

from mlx_server.engine.prompt_cache.block import Block, common, join


def block(tokens: int) -> Block:
    group = np.arange(2 * 3 * tokens * 5, dtype=np.uint32).reshape(2, 3, tokens, 5)
    return Block(tuple(range(tokens)), (group,), ("F32",), (0, 0))


def test_split_blocks_joined_are_the_whole_again():
    whole = block(12)
    parts = whole.split(4)
    assert [part.ids for part in parts] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    again = join(parts)
    assert again.ids == whole.ids
    assert np.array_equal(again.groups[0], whole.groups[0])
    assert sum(part.nbytes for part in parts) == whole.nbytes == again.nbytes


def test_parts_do_not_hold_the_whole_in_memory():
    for part in (*block(8).split(4), block(8).head(4)):
        assert part.groups[0].base is None


def test_head_is_the_first_tokens():
    head = block(8).head(3)
    assert (head.tokens, head.ids) == (3, (0, 1, 2))
    assert np.array_equal(head.groups[0], block(8).groups[0][:, :, :3])


def test_blocks_of_another_geometry_do_not_fit():
    one, other = block(4), block(4)
    wider = Block(one.ids, (np.zeros((2, 3, 4, 6), np.uint32),), ("F32",), (0, 0))
    assert one.fits(other) and one.fits(block(8))
    assert not one.fits(wider)
    assert not one.fits(Block(one.ids, one.groups, ("I32",), (0, 0)))


@pytest.mark.parametrize(
    ("one", "other", "length"), [("", "abc", 0), ("abc", "abd", 2), ("ab", "abc", 2), ("xa", "ya", 0)]
)
def test_common_begin(one, other, length):
    assert common([*map(ord, one)], [*map(ord, other)]) == length
