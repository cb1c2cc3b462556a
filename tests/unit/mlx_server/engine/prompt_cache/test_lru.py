"""Eviction of the least recently used keys, counted in bytes; a chain is evicted from its end."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.prompt_cache.lru import Lru


def test_lru_add_evicts_the_least_recently_used_key():
    lru = Lru(30)
    for key in "abc":
        assert lru.add({key: 10}) == []
    lru.use("a")
    assert lru.add({"d": 10}) == ["b"]
    assert list(lru) == ["c", "a", "d"]


def test_lru_add_evicts_keys_of_other_chains_before_the_last_key_of_its_own_chain():
    lru = Lru(50)
    lru.add({"x": 10})
    lru.add({"1": 10, "2": 10})
    assert lru.add({"3": 10, "4": 10, "5": 10}, chain="12345") == ["x"]
    assert lru.add({"6": 10}, chain="123456") == ["6"]
    assert lru.add({"y": 20}) == ["5", "4"]


def test_lru_entry_larger_than_the_whole_limit_is_not_stored_and_evicts_no_other_entry():
    lru = Lru(10)
    lru.add({"a": 5})
    assert lru.add({"b": 11}) == ["b"]
    assert list(lru) == ["a"]
    assert Lru(0).add({"a": 1}) == ["a"]


def test_lru_group_lists_the_newest_key_first_without_removed_keys():
    lru = Lru(40, group_of=lambda key: key[0])
    for key in ("a1", "a2", "b1"):
        lru.add({key: 10})
    assert lru.group("a") == ["a2", "a1"]
    lru.discard("a2")
    lru.discard("not there")
    assert (lru.group("a"), lru.group("c")) == (["a1"], [])
    lru.clear()
    assert (len(lru), lru.total_bytes, lru.group("a")) == (0, 0, [])


def test_lru_add_oldest_evicts_nothing_and_the_added_key_is_the_next_to_be_evicted():
    lru = Lru(30)
    lru.add({"used": 10})
    assert lru.add_oldest("a", 10) and lru.add_oldest("b", 10)
    assert not lru.add_oldest("c", 1)  # there is no room
    lru.resize(40)
    assert not lru.add_oldest("used", 10)  # it stays as recently used as it was
    assert list(lru) == ["b", "a", "used"]
    assert lru.resize(20) == ["b"]


@given(st.integers(0, 50), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20))))
def test_lru_total_bytes_is_the_sum_of_its_entry_sizes_and_never_exceeds_the_limit(limit, adds):
    lru, sizes = Lru(limit), dict[str, int]()
    for key, size in adds:
        sizes[key] = size
        gone = lru.add({key: size})
        assert all(key not in lru for key in gone)
        assert lru.total_bytes == sum(sizes[key] for key in lru) <= limit
    gone = lru.resize(limit // 2)
    assert lru.total_bytes == sum(sizes[key] for key in lru) <= limit // 2
    assert not set(gone) & set(lru)
