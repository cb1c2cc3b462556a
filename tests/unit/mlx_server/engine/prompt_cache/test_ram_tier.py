"""The RAM tier: blocks by key; the least recently used ones are dropped, and reported, to keep the limit."""

from __future__ import annotations

import pytest

from mlx_server.engine.prompt_cache.entry import Entry
from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent
from mlx_server.engine.prompt_cache.ram_tier import RamTier
from tests.prompt_cache_model import BLOCK_BYTES, SIZE, TAGS, blocks_of

KEYS = PrefixKeys("model", SIZE)
PROMPT, OTHER_PROMPT = range(16), range(100, 116)
CHAIN, OTHER_CHAIN = KEYS.of_blocks(PROMPT), KEYS.of_blocks(OTHER_PROMPT)
ENTRIES = {key: Entry(block, TAGS) for key, block in zip(CHAIN, blocks_of(PROMPT), strict=True)}
OTHERS = {key: Entry(block, TAGS) for key, block in zip(OTHER_CHAIN, blocks_of(OTHER_PROMPT), strict=True)}


@pytest.fixture
def full() -> RamTier:
    """Return a tier that is full of the four blocks of one prompt."""
    ram = RamTier(4 * BLOCK_BYTES)
    assert ram.insert(ENTRIES, CHAIN) == []
    return ram


def keys_in(ram: RamTier) -> list[str]:
    """Return which of all keys are in RAM, after checking that `in`, `get` and the size agree."""
    known = [*CHAIN, *OTHER_CHAIN]
    found = [key for key in known if key in ram]
    assert found == [key for key in known if ram.get(key) is not None]
    assert ram.total_bytes == len(found) * BLOCK_BYTES
    return found


def test_ram_tier_insert_over_the_limit_returns_the_dropped_keys_which_are_gone(full):
    first = dict(list(OTHERS.items())[:2])
    assert full.insert(first, OTHER_CHAIN[:2]) == CHAIN[:1:-1]  # the end of the older prompt
    assert keys_in(full) == [*CHAIN[:2], *OTHER_CHAIN[:2]]
    assert full.get(OTHER_CHAIN[0]) is OTHERS[OTHER_CHAIN[0]]


def test_ram_tier_insert_of_an_entry_larger_than_the_limit_returns_its_key_and_does_not_keep_it():
    ram = RamTier(BLOCK_BYTES - 1)
    assert ram.insert({CHAIN[0]: ENTRIES[CHAIN[0]]}) == CHAIN[:1]
    assert keys_in(ram) == []
    assert RamTier(0).insert(ENTRIES, CHAIN) == CHAIN


def test_ram_tier_evicts_blocks_of_other_prompts_before_earlier_blocks_of_the_inserted_prompt():
    ram = RamTier(8 * BLOCK_BYTES)
    ram.insert(dict(list(ENTRIES.items())[:3]), CHAIN[:3])
    ram.insert(OTHERS, OTHER_CHAIN)
    assert ram.insert({CHAIN[3]: ENTRIES[CHAIN[3]]}, CHAIN) == []
    assert ram.resize(4 * BLOCK_BYTES) == OTHER_CHAIN[::-1]
    assert keys_in(ram) == CHAIN


def test_ram_tier_drops_blocks_of_other_prompts_before_those_of_a_prompt_that_was_just_used():
    ram = RamTier(8 * BLOCK_BYTES)
    ram.insert(ENTRIES, CHAIN)
    ram.insert(OTHERS, OTHER_CHAIN)
    ram.use(CHAIN)
    assert ram.resize(4 * BLOCK_BYTES) == OTHER_CHAIN[::-1]
    assert keys_in(ram) == CHAIN


def test_ram_tier_insert_oldest_does_not_drop_others_to_make_room(full):
    full.insert_oldest(OTHER_CHAIN[0], OTHERS[OTHER_CHAIN[0]])
    assert keys_in(full) == CHAIN


def test_ram_tier_entry_inserted_as_the_oldest_is_dropped_before_all_others(full):
    full.discard(CHAIN[3])
    full.insert_oldest(OTHER_CHAIN[0], OTHERS[OTHER_CHAIN[0]])
    assert keys_in(full) == [*CHAIN[:3], OTHER_CHAIN[0]]
    assert full.insert({CHAIN[3]: ENTRIES[CHAIN[3]]}, CHAIN) == OTHER_CHAIN[:1]
    assert keys_in(full) == CHAIN


def test_ram_tier_insert_oldest_keeps_the_entry_that_is_already_present(full):
    full.resize(8 * BLOCK_BYTES)
    full.insert_oldest(CHAIN[0], Entry(ENTRIES[CHAIN[0]].value, TAGS))
    assert full.get(CHAIN[0]) is ENTRIES[CHAIN[0]]
    assert full.resize(BLOCK_BYTES) == CHAIN[:0:-1]  # it has not become the oldest


def test_ram_tier_shrink_drops_the_least_recently_used_and_leaves_the_limit_unchanged(full):
    assert full.shrink(BLOCK_BYTES) == CHAIN[:0:-1]
    assert keys_in(full) == CHAIN[:1]
    assert full.insert(ENTRIES, CHAIN) == []
    assert keys_in(full) == CHAIN


def test_ram_tier_resize_drops_what_exceeds_the_new_limit_and_keeps_to_it_afterward(full):
    assert full.resize(2 * BLOCK_BYTES + 1) == CHAIN[:1:-1]
    assert keys_in(full) == CHAIN[:2]
    full.insert(OTHERS, OTHER_CHAIN)
    assert keys_in(full) == OTHER_CHAIN[:2]


def test_ram_tier_resized_below_zero_has_a_limit_of_zero(full):
    assert full.resize(-1) == CHAIN[::-1]
    assert keys_in(full) == []
    assert full.shrink(0) == []
    full.insert_oldest(CHAIN[0], ENTRIES[CHAIN[0]])
    assert full.insert(OTHERS, OTHER_CHAIN) == OTHER_CHAIN
    assert keys_in(full) == []


def test_ram_tier_lists_the_successors_of_a_block_newest_first_and_without_dropped_blocks(full):
    branch = KEYS.of_blocks([*PROMPT[:SIZE], *OTHER_PROMPT[:SIZE]])[1]
    full.resize(8 * BLOCK_BYTES)
    full.insert({branch: OTHERS[OTHER_CHAIN[0]]})
    assert full.following(as_parent(CHAIN[0])) == [branch, CHAIN[1]]
    full.discard(branch)
    full.discard("not there")
    assert full.following(as_parent(CHAIN[0])) == CHAIN[1:2]
    full.clear()
    assert (full.following(as_parent(CHAIN[0])), full.total_bytes, keys_in(full)) == ([], 0, [])
