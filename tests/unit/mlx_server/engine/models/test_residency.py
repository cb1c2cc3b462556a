"""The rules by which models are unloaded."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.models.residency import Resident, expired, expiry_s, next_expiry_s, victims

IDLE_OLD = Resident("old", busy=False, last_used_s=1, expires_s=20)
IDLE_NEW = Resident("new", busy=False, last_used_s=2, expires_s=30)
BUSY = Resident("busy", busy=True, last_used_s=0, expires_s=5)


def test_expired_models_are_idle_ones_whose_keep_alive_is_over():
    assert expired([IDLE_OLD, IDLE_NEW, BUSY], now=20) == ["old"]


def test_next_model_expiry_is_the_earliest_among_idle_models():
    assert next_expiry_s([IDLE_NEW, BUSY]) == 30
    assert next_expiry_s([BUSY]) == inf


def test_model_to_evict_at_the_limit_is_the_least_recently_used_idle_one():
    assert victims([IDLE_NEW, IDLE_OLD, BUSY], limit=3) == ["old"]


def test_no_model_is_evicted_below_the_limit_of_loaded_models():
    assert victims([IDLE_OLD, BUSY], limit=3) == []


def test_models_to_evict_are_none_if_all_models_are_busy():
    assert victims([BUSY], limit=1) is None


def test_model_expires_after_its_keep_alive_or_else_the_default_time_and_never_if_that_is_negative():
    assert expiry_s(10, None, 5) == 15
    assert expiry_s(10, None, -1) == inf
    assert expiry_s(10, -1, 5) == inf
    assert expiry_s(10, 0, 5) == 10


residents = st.lists(
    st.builds(Resident, st.text("abc", min_size=1), st.booleans(), st.floats(0, 9), st.floats(0, 9)),
    unique_by=lambda r: r.name,
)


@given(residents, st.integers(1, 4))
def test_models_to_evict_are_idle_and_their_unloading_makes_room_for_one_model(loaded, limit):
    leaving = victims(loaded, limit)
    if leaving is not None:
        assert not {r.name for r in loaded if r.busy} & set(leaving)
        assert len(loaded) - len(leaving) + 1 <= max(limit, 1)


def resident(name, last_used_s, weights="", *, busy=False):
    return Resident(name, busy, last_used_s, expires_s=20, weights=weights)


def test_base_model_and_its_adapters_count_as_one_loaded_model_and_are_evicted_together():
    llama = [resident("llama3", 1, "w"), resident("llama3:pirate", 5, "w"), resident("llama3:poet", 2, "w")]
    other = resident("other", 3)
    assert victims([*llama, other], limit=3) == []
    assert victims([*llama, other], limit=2) == ["other"], "one of the adapters was used last"
    assert victims(llama, limit=1) == ["llama3", "llama3:poet", "llama3:pirate"]
    assert victims([*llama, other], limit=1, weights="w") == [], "the weights are there"
    assert victims([*llama[:2], resident("llama3:poet", 2, "w", busy=True)], limit=1) is None
