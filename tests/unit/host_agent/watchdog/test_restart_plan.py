"""When a dead agent is started again: at once, then after growing delays, and never too often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from host_agent.watchdog.restart_plan import STABLE_AFTER_S, RestartPlan


def delays(*lives_s: float) -> list[float]:
    """Return the delay of the start after each of these lives; each begins when the last start was due."""
    plan, now, waited = RestartPlan(), 0.0, []
    for lived_s in lives_s:
        now += lived_s
        plan, wait_s = plan.agent_died(now, lived_s)
        now += wait_s
        waited.append(wait_s)
    return waited


def test_watchdog_restarts_an_agent_without_delay_after_each_long_run():
    assert delays(*[3600.0] * 5) == [0.0] * 5


def test_watchdog_waits_longer_before_each_restart_of_an_agent_that_keeps_dying_soon_after_its_start():
    first = delays(*[0.0] * 20)
    assert first[:5] == [0.0, 2.0, 4.0, 8.0, 16.0]
    assert first[5] >= 300.0 - sum(first[:5]), "five starts in 5 min are the most"
    assert max(first) <= 300.0
    assert first[-1] == 300.0


def test_watchdog_delay_after_early_deaths_of_the_agent_is_zero_again_after_a_long_run():
    assert delays(0.0, 0.0, 0.0, STABLE_AFTER_S)[-1] == 0.0


@given(st.lists(st.floats(0.0, 400.0), min_size=1, max_size=60))
def test_watchdog_starts_an_agent_at_most_five_times_in_five_minutes(lives_s: list[float]):
    plan, now, starts = RestartPlan(), 0.0, []
    for lived_s in lives_s:
        now += lived_s
        plan, wait_s = plan.agent_died(now, lived_s)
        assert wait_s >= 0.0
        now += wait_s
        starts.append(now)
    for start in starts:
        assert sum(start <= other < start + 299.9 for other in starts) <= 5
