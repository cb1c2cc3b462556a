from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vestal.supervision import Backoff


def test_restart_backoff_by_default_doubles_from_2_to_60_seconds():
    assert [Backoff().delay(n) for n in range(7)] == [2, 4, 8, 16, 32, 60, 60]


@given(n=st.integers(0, 10**9), base_s=st.floats(0.001, 100), max_s=st.floats(0.001, 10_000))
def test_restart_backoff_never_shrinks_and_never_exceeds_the_maximum(n: int, base_s: float, max_s: float):
    backoff = Backoff(base_s, max_s)
    assert 0 < backoff.delay(n) <= max_s
    assert backoff.delay(n) <= backoff.delay(n + 1)
