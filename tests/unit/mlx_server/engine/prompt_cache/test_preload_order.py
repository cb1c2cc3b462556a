"""The choice of the blocks that are read into RAM in advance: the newest of one model, within the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.prompt_cache import preload_order
from mlx_server.engine.prompt_cache.keys import PrefixKeys
from mlx_server.engine.prompt_cache.preload_order import SLICE_BYTES, PreloadQueue, newest_chain, newest_of

MODEL, OTHER = PrefixKeys("model", 4), PrefixKeys("other", 4)
FIRST, SECOND = MODEL.of_blocks(range(12)), MODEL.of_blocks(range(50, 58))
(SNAPSHOT,) = MODEL.of_snapshots(range(7), [7])
FOREIGN = OTHER.of_blocks(range(12))
BLOCKS = st.sampled_from([(0,) * 4, (1,) * 4])
PROMPTS = st.lists(st.lists(BLOCKS, max_size=5).map(lambda blocks: sum(blocks, ())), max_size=6)
sizes = st.lists(st.one_of(st.none(), st.integers(0, 2 * SLICE_BYTES)), max_size=30)


def test_cache_blocks_selected_for_preload_are_those_of_one_model_from_newest_to_oldest():
    newest = [*SECOND, FOREIGN[0], SNAPSHOT, *FIRST, *FOREIGN[1:]]
    assert newest_of(MODEL, newest) == [*SECOND, SNAPSHOT, *FIRST]
    assert newest_of(OTHER, newest) == FOREIGN


def test_newest_cache_blocks_to_preload_omit_a_block_whose_predecessor_is_missing():
    assert newest_of(MODEL, [FIRST[0], FIRST[2], *SECOND[1:]]) == [FIRST[0]]


def test_preload_considers_only_a_limited_number_of_the_newest_cache_blocks(monkeypatch):
    monkeypatch.setattr(preload_order, "MOST_BLOCKS", 2)
    assert newest_of(MODEL, FIRST) == FIRST[:2]


def test_newest_chain_is_the_most_recently_used_prompt_from_its_first_block_on_in_order():
    assert newest_chain(MODEL, [*SECOND, *FIRST]) == SECOND
    assert newest_chain(MODEL, [*FIRST[::-1], *SECOND]) == FIRST


def test_newest_chain_continues_at_a_branch_with_the_most_recently_used_block():
    other = MODEL.of_blocks([*range(8), 1, 1, 1, 1])
    assert newest_chain(MODEL, [*other, FIRST[2]]) == other
    assert newest_chain(MODEL, [FIRST[2], *other]) == FIRST


def test_newest_chain_stops_at_a_missing_block():
    assert newest_chain(MODEL, [FIRST[0], FIRST[2], *SECOND]) == FIRST[:1]
    assert newest_chain(MODEL, FIRST[1:]) == []


def test_blocks_of_the_last_used_prompt_include_no_snapshots_and_no_blocks_of_other_models():
    assert newest_chain(MODEL, [*FOREIGN, SNAPSHOT]) == []
    assert newest_chain(MODEL, [SNAPSHOT, FOREIGN[0], *FIRST]) == FIRST


@given(PROMPTS, st.data())
def test_newest_chain_follows_the_most_recently_used_of_the_present_blocks_from_the_beginning(prompts, data):
    ends = {prompt[:end] for prompt in prompts for end in range(4, len(prompt) + 1, 4)}
    present = data.draw(st.sets(st.sampled_from(sorted(ends)))) if ends else set()
    keys = {tokens: MODEL.of_blocks(tokens)[-1] for tokens in present}
    newest = data.draw(st.permutations([*sorted(keys.values()), *FOREIGN, SNAPSHOT]))
    chain, tokens = list[str](), ()
    while following := [key for at, key in keys.items() if at[:-4] == tokens]:
        chain.append(min(following, key=newest.index))
        tokens = next(at for at, key in keys.items() if key == chain[-1])
    assert newest_chain(MODEL, newest) == chain == MODEL.of_blocks(tokens)


@given(sizes, st.integers(0, 8 * SLICE_BYTES))
def test_preload_slices_have_the_newest_cache_blocks_within_the_memory_budget(of_keys, budget):
    known = dict(zip(map(str, range(len(of_keys))), of_keys, strict=True))
    queue, read, left = PreloadQueue(known), list[str](), budget
    while keys := queue.take(known.__getitem__, left):
        taken = [known[key] or 0 for key in keys]
        assert len(keys) == 1 or sum(taken) <= SLICE_BYTES
        left -= sum(taken)
        read += keys
    assert left >= 0
    wanted = [key for key, size in known.items() if size is not None]
    assert read == wanted[: len(read)]
    if len(read) < len(wanted):
        assert (known[wanted[len(read)]] or 0) > left


def test_preload_queue_ended_by_a_block_over_the_budget_stays_ended_when_the_budget_grows():
    queue = PreloadQueue(["large", "small"])
    assert queue.take({"large": 10, "small": 1}.__getitem__, 5) == []
    assert queue.take({"large": 10, "small": 1}.__getitem__, 50) == []
