"""The caches of ended requests: the longest usable beginning of a prompt, once, within the limit."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_server.engine.prompt_cache.ready_caches import LEAST_SHARE, ReadyCache, ReadyCaches

TOKENS = st.lists(st.integers(0, 1), max_size=8)
MODEL = st.sampled_from(["a", "b"])


def ready(ids: Sequence[int], nbytes: int = 10, model: str = "a") -> ReadyCache:
    return ReadyCache(model, tuple(ids), [object()], nbytes)


def holding(*entries: ReadyCache, limit: int = 100) -> ReadyCaches:
    """Return the store after `entries` were put into it, in this order."""
    store = ReadyCaches(limit)
    for entry in entries:
        store.put(entry)
    return store


def test_caches_of_ended_requests_taken_by_a_prompt_that_continues_them_are_no_longer_kept():
    entry = ready([1, 2, 3])
    store = holding(entry)
    taken = store.take("a", [1, 2, 3, 4], 0)
    assert taken is not None
    assert taken[0] is entry
    assert taken[1] == 3
    assert (store.take("a", [1, 2, 3, 4], 0), store.nbytes) == (None, 0)


def test_prompt_takes_the_caches_of_the_ended_request_with_the_longest_common_beginning_whatever_its_age():
    short, long = ready([*range(9), -1]), ready([*range(10), -1])
    for order in (short, long), (long, short):
        store = holding(*order)
        for expected, tokens in (long, 10), (short, 9):
            taken = store.take("a", range(12), 0)
            assert taken is not None
            assert taken[0] is expected
            assert taken[1] == tokens


def test_caches_of_ended_requests_of_another_model_are_not_taken():
    store = holding(ready([1, 2, 3], model="b"))
    assert store.take("a", [1, 2, 3], 0) is None
    assert store.take("b", [1, 2, 3], 0) is not None


def test_caches_of_ended_requests_are_taken_only_by_a_prompt_that_shares_enough_of_their_tokens():
    ids = range(100)
    least = ceil(LEAST_SHARE * len(ids))
    store = holding(ready(ids))
    assert store.take("a", [*ids[: least - 1], -1], 0) is None
    taken = store.take("a", [*ids[:least], -1], 0)
    assert taken is not None
    assert taken[1] == least


def test_smaller_caches_that_a_prompt_can_use_are_taken_although_it_shares_more_tokens_with_larger_ones():
    long = ready([*range(10), *range(900, 1000)])
    short = ready([*range(5), -1])
    store = holding(long, short)
    taken = store.take("a", range(20), 0)
    assert taken is not None
    assert taken[0] is short
    assert store.nbytes == long.nbytes


def test_caches_of_ended_requests_are_taken_only_if_they_hold_at_least_the_wanted_number_of_tokens():
    store = holding(ready([1, 2, 3]))
    assert store.take("a", [1, 2, 3, 4], 4) is None
    taken = store.take("a", [1, 2, 3, 4], 3)
    assert taken is not None
    assert taken[1] == 3


def test_caches_of_ended_requests_without_a_common_first_token_are_not_taken_even_if_no_tokens_are_wanted():
    store = holding(ready([1]))
    assert store.take("a", [2], 0) is None
    assert store.take("a", [], 0) is None
    assert store.nbytes == 10


def test_new_caches_of_an_ended_request_replace_those_that_hold_only_a_beginning_of_its_tokens():
    other_model, branch = ready([1, 2], model="b"), ready([1, 9])
    store = holding(other_model, ready([1]), branch, ready([1, 2]), limit=1000)
    store.put(ready([1, 2, 3], nbytes=500))
    assert store.nbytes == 500 + branch.nbytes + other_model.nbytes
    taken = store.take("b", [1, 2], 0)
    assert taken is not None
    assert taken[0] is other_model


def test_new_caches_of_an_ended_request_are_ignored_if_others_already_hold_all_its_tokens():
    whole = ready([1, 2, 3])
    store = holding(whole, ready([1, 2]), ready([1, 2, 3]))
    assert store.nbytes == whole.nbytes
    taken = store.take("a", [1, 2, 3], 0)
    assert taken is not None
    assert taken[0] is whole


def test_caches_of_ended_requests_over_the_limit_drop_the_oldest_ones_first():
    store = holding(ready([1], 40), ready([2], 40), ready([3], 40), limit=100)
    assert store.take("a", [1], 0) is None
    assert store.nbytes == 80
    store.put(ready([4], 100))
    assert [store.take("a", [token], 0) is None for token in (2, 3, 4)] == [True, True, False]


def test_shrinking_the_caches_of_ended_requests_drops_the_oldest_and_leaves_the_limit_unchanged():
    store = holding(ready([1], 40), ready([2], 30), ready([3], 30), limit=100)
    store.shrink(60)
    assert store.nbytes == 60
    store.shrink(59)
    assert (store.nbytes, store.take("a", [2], 0)) == (30, None)
    store.put(ready([4], 70))
    assert store.nbytes == 100
    store.shrink(-1)
    assert store.nbytes == 0


def test_caches_of_ended_requests_larger_than_the_limit_are_not_kept_and_drop_no_others():
    kept = ready([1], 40)
    store = holding(kept, ready([1, 2], 101), ready([3], 101), limit=100)
    assert store.nbytes == 40
    taken = store.take("a", [1], 0)
    assert taken is not None
    assert taken[0] is kept


def test_caches_of_ended_requests_are_not_kept_if_the_limit_is_zero_bytes():
    store = holding(ready([1], 1), limit=0)
    assert (store.nbytes, store.take("a", [1], 0)) == (0, None)


def test_caches_of_an_ended_request_without_tokens_are_not_kept():
    assert holding(ready([])).nbytes == 0


def test_caches_of_ended_requests_of_a_dropped_model_are_gone_and_those_of_others_stay():
    store = holding(ready([1]), ready([2]), ready([1], 5, model="b"))
    store.drop("a")
    assert store.nbytes == 5
    assert store.take("a", [1], 0) is None
    store.drop("a")
    store.clear()
    assert (store.nbytes, store.take("b", [1], 0)) == (0, None)


class AnyUse(RuleBasedStateMachine):
    """Put, take and drop caches in any order, and compare the result with a plain list, the oldest first."""

    @initialize(limit=st.integers(0, 40))
    def opened(self, limit: int) -> None:
        self.store = ReadyCaches(limit)
        self.known: list[ReadyCache] = []
        self.taken: list[ReadyCache] = []

    @rule(model=MODEL, ids=TOKENS, nbytes=st.integers(1, 20))
    def caches_are_put(self, model: str, ids: list[int], nbytes: int) -> None:
        new = ready(ids, nbytes, model)
        self.store.put(new)
        same_model = [entry for entry in self.known if entry.model == model]
        covered = any(list(entry.ids[: len(ids)]) == ids for entry in same_model)
        if not ids or covered or nbytes > self.store.limit_bytes:
            return
        beginnings = [id(entry) for entry in same_model if ids[: len(entry.ids)] == list(entry.ids)]
        self.known = [entry for entry in self.known if id(entry) not in beginnings] + [new]
        while sum(entry.nbytes for entry in self.known) > self.store.limit_bytes:
            self.known.pop(0)

    @rule(model=MODEL, ids=TOKENS, at_least=st.integers(0, 8))
    def caches_are_taken(self, model: str, ids: list[int], at_least: int) -> None:
        usable = [
            (entry, same)
            for entry in self.known
            if entry.model == model
            and (same := self.same_tokens(entry, ids)) >= max(at_least, 1)
            and same >= LEAST_SHARE * len(entry.ids)
        ]
        taken = self.store.take(model, ids, at_least)
        if taken is None:
            assert not usable
            return
        assert taken[1] == max(same for _, same in usable)
        assert any(entry is taken[0] and same == taken[1] for entry, same in usable)
        self.remove(taken[0])

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def caches_are_taken_by_their_own_tokens(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.known))
        taken = self.store.take(entry.model, entry.ids, len(entry.ids))
        assert taken is not None
        assert taken[0] is entry
        self.remove(entry)

    @rule(model=MODEL)
    def a_model_is_dropped(self, model: str) -> None:
        self.store.drop(model)
        self.known = [entry for entry in self.known if entry.model != model]

    @rule(most_bytes=st.integers(-1, 40))
    def caches_are_shrunk(self, most_bytes: int) -> None:
        self.store.shrink(most_bytes)
        while self.known and sum(entry.nbytes for entry in self.known) > most_bytes:
            self.known.pop(0)

    @rule()
    def all_is_cleared(self) -> None:
        self.store.clear()
        self.known = []

    @invariant()
    def bytes_are_those_of_the_known_caches_and_within_the_limit(self) -> None:
        assert self.store.nbytes == sum(entry.nbytes for entry in self.known) <= self.store.limit_bytes

    def teardown(self) -> None:
        """Take all caches by their own tokens: exactly the known ones must be there, and nothing else."""
        for entry in self.known:
            taken = self.store.take(entry.model, entry.ids, len(entry.ids))
            assert taken is not None
            assert taken[0] is entry
        assert self.store.nbytes == 0

    def same_tokens(self, entry: ReadyCache, ids: Sequence[int]) -> int:
        return max(n for n in range(len(ids) + 1) if list(entry.ids[:n]) == list(ids[:n]))

    def remove(self, taken: ReadyCache) -> None:
        assert not any(taken is earlier for earlier in self.taken)
        self.taken.append(taken)
        self.known = [entry for entry in self.known if entry is not taken]


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=200, stateful_step_count=25)
