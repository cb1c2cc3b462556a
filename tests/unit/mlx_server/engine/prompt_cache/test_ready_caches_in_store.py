"""The caches of ended requests share the limit for RAM with the blocks, and are counted like them."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.prompt_cache.prefix_match import HitCounts
from mlx_server.engine.prompt_cache.ready_caches import ReadyCache
from mlx_server.engine.prompt_cache.store import READY_SHARE, BlockStore
from tests.prompt_cache_model import (
    BLOCK_BYTES,
    OTHER_PROMPT,
    PROMPT,
    SIZE,
    WHOLE,
    Model,
)

LONG_PROMPT = [*PROMPT, *range(60, 68)]


def ready(tokens, blocks, identity="model"):
    """Return the caches of an ended request, which take as many bytes as `blocks` blocks."""
    return ReadyCache(identity, tuple(tokens), [object()], blocks * BLOCK_BYTES)


def take_ready(model, tokens):
    match = model.store.find(model.keys, tokens, model.tags)
    assert match is not None
    return model.store.take_ready(match, model.salt)


def test_caches_of_ended_requests_are_taken_once_by_a_request_that_continues_their_tokens(open_store):
    model, kept = Model(open_store()), ready(PROMPT, 5)
    model.keep(PROMPT)
    model.store.keep_ready(kept)
    assert model.store.ready_bytes == 5 * BLOCK_BYTES
    other = Model(model.store, "other")
    other.keep(PROMPT)
    assert take_ready(other, LONG_PROMPT) is None
    taken = take_ready(model, LONG_PROMPT)
    assert taken is not None
    assert taken[0] is kept
    assert taken[1] == len(PROMPT)
    assert (model.store.ready_bytes, take_ready(model, LONG_PROMPT)) == (0, None)


def test_caches_of_ended_requests_drop_the_least_recently_used_blocks_and_return_the_room_when_taken(
    open_store,
):
    model = Model(open_store(ram=10 * BLOCK_BYTES, on_disk=0))
    model.keep(OTHER_PROMPT)
    model.keep(PROMPT)
    model.store.keep_ready(ready(PROMPT, 3))
    assert (model.store.ram_bytes, model.store.ready_bytes) == (7 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    assert model.get(PROMPT) == WHOLE
    assert model.get(OTHER_PROMPT) == 2 * SIZE
    assert take_ready(model, LONG_PROMPT) is not None
    assert model.keep(OTHER_PROMPT) == 3
    assert (model.store.ram_bytes, model.store.ready_bytes) == (10 * BLOCK_BYTES, 0)
    assert [model.get(PROMPT), model.get(OTHER_PROMPT)] == [WHOLE, WHOLE]


def test_caches_of_an_ended_request_beyond_their_share_of_ram_are_not_kept_and_evict_no_blocks(open_store):
    model = Model(open_store(ram=10 * BLOCK_BYTES, on_disk=0))
    model.keep(OTHER_PROMPT)
    model.keep(PROMPT)
    model.store.keep_ready(ready(PROMPT, int(READY_SHARE * 10) + 1))
    assert (model.store.ram_bytes, model.store.ready_bytes) == (10 * BLOCK_BYTES, 0)


def test_caches_of_ended_requests_are_not_taken_if_blocks_hold_more_of_the_prompt(open_store):
    model = Model(open_store())
    model.keep(PROMPT)
    model.store.keep_ready(ready(PROMPT[: WHOLE - 1], 5))
    assert take_ready(model, LONG_PROMPT) is None
    assert model.store.counts == HitCounts()
    assert model.store.ready_bytes == 5 * BLOCK_BYTES
    model.store.keep_ready(ready(PROMPT[:WHOLE], 4))  # as much as the blocks
    assert model.store.ready_bytes == 4 * BLOCK_BYTES
    taken = take_ready(model, LONG_PROMPT)
    assert taken is not None
    assert taken[1] == WHOLE


def test_taking_caches_of_ended_requests_counts_as_many_hits_and_misses_as_finding_blocks(open_store):
    by_blocks, by_ready = Model(open_store(on_disk=0)), Model(open_store(on_disk=0))
    by_blocks.keep([*PROMPT, 98, 99])
    assert by_blocks.get(LONG_PROMPT) == len(PROMPT)
    by_ready.keep(PROMPT[:SIZE])
    by_ready.store.keep_ready(ready(PROMPT, 5))
    assert take_ready(by_ready, LONG_PROMPT) is not None
    assert by_ready.store.counts == by_blocks.store.counts == HitCounts(hits_ram=6, misses=2)


def test_cache_blocks_of_a_prompt_whose_caches_of_ended_requests_were_taken_are_evicted_last(open_store):
    model = Model(open_store(ram=13 * BLOCK_BYTES))
    model.keep(PROMPT)
    model.keep(OTHER_PROMPT)
    model.store.keep_ready(ready(PROMPT, 3))
    assert model.store.ram_bytes == 10 * BLOCK_BYTES
    assert take_ready(model, LONG_PROMPT) is not None
    assert model.store._disk.newest()[:5] == model.keys.of_blocks(PROMPT)
    model.keep(range(200, 232))  # eight blocks
    model.store.persist(60.0)
    assert model.store.ram_bytes == 13 * BLOCK_BYTES
    assert [model.get(PROMPT), model.get(OTHER_PROMPT)] == [WHOLE, WHOLE]
    assert (model.store.counts.hits_ram, model.store.counts.hits_disk) == (6 + 5, 5)


def test_caches_of_ended_requests_of_a_dropped_model_are_gone_and_return_their_room_to_blocks(open_store):
    model = Model(open_store(ram=10 * BLOCK_BYTES, on_disk=0))
    model.store.keep_ready(ready(PROMPT, 3))
    model.store.keep_ready(ready(PROMPT, 2, identity="other"))
    model.store.drop_ready("model")
    assert model.store.ready_bytes == 2 * BLOCK_BYTES
    model.keep(PROMPT)
    model.keep(OTHER_PROMPT)
    assert model.store.ram_bytes == 8 * BLOCK_BYTES
    model.store.drop_ready("other")
    model.keep(OTHER_PROMPT)
    model.keep(PROMPT)
    assert (model.store.ram_bytes, model.store.ready_bytes) == (10 * BLOCK_BYTES, 0)


@pytest.mark.parametrize(("blocks", "left"), [(1, 10), (3, 10), (5, 8), (13, 0), (99, 0)])
def test_freeing_ram_drops_caches_of_ended_requests_first_and_then_only_as_many_blocks_as_are_lacking(
    open_store, blocks, left
):
    model = Model(open_store(ram=13 * BLOCK_BYTES, on_disk=0))
    model.keep(PROMPT)
    model.keep(OTHER_PROMPT)
    model.store.keep_ready(ready(PROMPT, 3))
    model.store.free_ram(blocks * BLOCK_BYTES)
    assert (model.store.ready_bytes, model.store.ram_bytes) == (0, left * BLOCK_BYTES)
    model.keep([1] * 13 * SIZE)  # the limit is unchanged
    assert model.store.ram_bytes == 13 * BLOCK_BYTES


@pytest.mark.parametrize(
    ("blocks", "ready_left", "in_ram_left"),
    [(0, 5, 5), (1, 2, 5), (3, 2, 5), (4, 0, 5), (5, 0, 5), (6, 0, 4)],
)
def test_freeing_ram_drops_only_as_many_of_the_oldest_caches_of_ended_requests_as_are_needed(
    open_store, blocks, ready_left, in_ram_left
):
    model = Model(open_store(ram=10 * BLOCK_BYTES, on_disk=0))
    model.keep(PROMPT)
    model.store.keep_ready(ready(OTHER_PROMPT, 3))
    model.store.keep_ready(ready(PROMPT, 2))
    model.store.free_ram(blocks * BLOCK_BYTES)
    assert model.store.ready_bytes == ready_left * BLOCK_BYTES
    assert model.store.ram_bytes == in_ram_left * BLOCK_BYTES
    assert (take_ready(model, LONG_PROMPT) is not None) == (ready_left > 0)


def test_cache_folder_deleted_while_running_drops_caches_of_ended_requests_and_returns_their_room(
    open_store, tmp_path
):
    model = Model(open_store(ram=10 * BLOCK_BYTES))
    model.keep(PROMPT)
    model.store.persist(60.0)
    model.store.keep_ready(ready(PROMPT, 5))
    shutil.rmtree(tmp_path / "prompts")
    model.store.retry_unwritten()
    assert (model.store.ready_bytes, model.store.ram_bytes) == (0, 0)
    model.keep(PROMPT)
    model.keep(OTHER_PROMPT)
    assert model.store.ram_bytes == 10 * BLOCK_BYTES
    assert take_ready(model, LONG_PROMPT) is None


RAM_BLOCKS = 12
READY_BLOCKS = int(READY_SHARE * RAM_BLOCKS)
TOKENS = st.lists(st.integers(0, 1), max_size=32)
STEPS = st.one_of(
    st.tuples(st.just("keep"), TOKENS),
    st.tuples(st.just("keep_ready"), TOKENS, st.integers(1, RAM_BLOCKS)),
    st.tuples(st.just("take_ready"), TOKENS),
    st.tuples(st.just("drop_ready")),
    st.tuples(st.just("free_ram"), st.integers(1, 2 * RAM_BLOCKS)),
)


@given(st.lists(STEPS, max_size=30))
def test_cache_blocks_in_ram_and_caches_of_ended_requests_together_never_exceed_the_ram_limit(steps):
    store = BlockStore(None, RAM_BLOCKS * BLOCK_BYTES, 0)
    model = Model(store)
    for step in steps:
        match step:
            case "keep", tokens:
                model.keep(tokens)
            case "keep_ready", tokens, blocks:
                store.keep_ready(ready(tokens, blocks))
            case "take_ready", tokens:
                found, before = model.get(tokens), store.ready_bytes
                match = store.find(model.keys, tokens, model.tags)
                taken = store.take_ready(match, "model") if match else None
                if taken is not None:
                    assert taken[1] >= found // SIZE * SIZE
                    assert taken[0].ids[: taken[1]] == tuple(tokens[: taken[1]])
                    assert store.ready_bytes == before - taken[0].nbytes
            case ("drop_ready",):
                store.drop_ready("model")
            case "free_ram", blocks:
                size, in_ram, in_ready = blocks * BLOCK_BYTES, store.ram_bytes, store.ready_bytes
                store.free_ram(size)
                assert store.ram_bytes + store.ready_bytes <= max(in_ram + in_ready - size, 0)
                assert store.ready_bytes == 0 or store.ram_bytes == in_ram
        assert store.ram_bytes + store.ready_bytes <= RAM_BLOCKS * BLOCK_BYTES
        assert store.ready_bytes <= READY_BLOCKS * BLOCK_BYTES
    store.close()
