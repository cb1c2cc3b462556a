from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vestal.supervision import Intensity


def test_restart_intensity_is_exceeded_while_the_time_window_holds_the_maximum_of_restarts():
    intensity = Intensity(max_restarts=2, window_s=10)
    intensity = intensity.add(0).add(4)
    assert intensity.exceeded(9.9)
    assert not intensity.exceeded(10)
    assert intensity.add(10).exceeded(13.9)


def test_restart_intensity_with_a_maximum_of_zero_restarts_is_always_exceeded():
    assert Intensity(max_restarts=0).exceeded(0)


@given(gaps=st.lists(st.floats(0, 50), max_size=60), most=st.integers(1, 6), window_s=st.floats(1, 100))
def test_restarts_allowed_by_the_restart_intensity_never_exceed_the_maximum_in_any_window(
    gaps: list[float], most: int, window_s: float
):
    intensity, now = Intensity(most, window_s), 0.0
    restarts: list[float] = []
    for gap in gaps:
        now += gap
        if not intensity.exceeded(now):
            intensity = intensity.add(now)
            restarts.append(now)
    for start in restarts:
        assert sum(1 for at in restarts if 0 <= at - start < window_s) <= most
