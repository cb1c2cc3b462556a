"""Which models leave memory, and when."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.models.residency import Resident, deadline, expired, next_expiry_s, victims

IDLE_OLD = Resident("old", busy=False, last_used_s=1, expires_s=20)
IDLE_NEW = Resident("new", busy=False, last_used_s=2, expires_s=30)
BUSY = Resident("busy", busy=True, last_used_s=0, expires_s=5)


def test_idle_model_expires_at_its_time_and_a_busy_one_does_not():
    assert expired([IDLE_OLD, IDLE_NEW, BUSY], now=20) == ["old"]


def test_next_expiry_is_the_first_of_the_idle():
    assert next_expiry_s([IDLE_NEW, BUSY]) == 30
    assert next_expiry_s([BUSY]) == inf


def test_least_recently_used_idle_model_makes_way():
    assert victims([IDLE_NEW, IDLE_OLD, BUSY], limit=3) == ["old"]


def test_with_room_nobody_makes_way():
    assert victims([IDLE_OLD, BUSY], limit=3) == []


def test_with_only_busy_models_the_new_one_waits():
    assert victims([BUSY], limit=1) is None


def test_keep_alive_none_takes_the_default_and_negative_means_for_ever():
    assert deadline(10, None, 5) == 15
    assert deadline(10, None, -1) == inf
    assert deadline(10, -1, 5) == inf
    assert deadline(10, 0, 5) == 10


residents = st.lists(
    st.builds(Resident, st.text("abc", min_size=1), st.booleans(), st.floats(0, 9), st.floats(0, 9)),
    unique_by=lambda r: r.name,
)


@given(residents, st.integers(1, 4))
def test_victims_are_idle_and_leave_room_for_one(held, limit):
    leaving = victims(held, limit)
    if leaving is not None:
        assert not {r.name for r in held if r.busy} & set(leaving)
        assert len(held) - len(leaving) + 1 <= max(limit, 1)
