from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vestal.supervision import Intensity


def test_exceeded_when_the_window_is_full_and_over_when_it_has_moved_on():
    intensity = Intensity(max_restarts=2, window_s=10)
    intensity = intensity.add(0).add(4)
    assert intensity.exceeded(9.9)
    assert not intensity.exceeded(10)
    assert intensity.add(10).exceeded(13.9)


def test_exceeded_when_no_restart_is_allowed_is_always_so():
    assert Intensity(max_restarts=0).exceeded(0)


@given(gaps=st.lists(st.floats(0, 50), max_size=60), most=st.integers(1, 6), window_s=st.floats(1, 100))
def test_add_only_where_not_exceeded_keeps_every_window_within_the_limit(
    gaps: list[float], most: int, window_s: float
):
    intensity, now = Intensity(most, window_s), 0.0
    made: list[float] = []
    for gap in gaps:
        now += gap
        if not intensity.exceeded(now):
            intensity = intensity.add(now)
            made.append(now)
    for start in made:
        assert sum(1 for at in made if 0 <= at - start < window_s) <= most
