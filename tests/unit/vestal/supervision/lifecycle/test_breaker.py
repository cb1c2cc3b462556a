"""The circuit breaker: when it opens, the half-open rule, and how long it stays open."""

from __future__ import annotations

import pytest

from vestal.supervision import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(failures=3, open_s=60, max_open_s=200)


def opened(now: float = 0.0) -> Breaker:
    return Breaker(POLICY).start_failed(now).start_failed(now).start_failed(now)


def test_restart_breaker_stays_closed_if_a_success_interrupts_the_failures():
    breaker = Breaker(POLICY).start_failed(0).start_failed(1).start_succeeded()
    breaker = breaker.start_failed(2).start_failed(3)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allows_start(3)


def test_restart_breaker_at_its_failure_limit_stays_open_for_the_configured_time():
    breaker = opened(10)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows_start(69.9)
    assert breaker.allows_start(70)


def test_begin_trial_raises_while_the_restart_breaker_is_open():
    with pytest.raises(ValueError, match="allows no start"):
        opened(0).begin_trial(59, 5)


def test_half_open_restart_breaker_allows_no_second_start():
    trial = opened(0).begin_trial(60, 30)
    assert trial.state is BreakerState.HALF_OPEN
    assert not trial.allows_start(89)


def test_trial_start_without_a_result_expires_and_another_one_is_allowed():
    """resilience4j issue 903: a breaker stayed half-open for all time, because its trial never reported."""
    trial = opened(0).begin_trial(60, 30)
    assert trial.allows_start(90)
    assert trial.begin_trial(90, 30).until == 120


def test_trial_start_whose_time_was_extended_still_blocks_other_starts_after_its_original_time():
    trial = opened(0).begin_trial(60, 30).extend_trial(80, 30)
    assert not trial.allows_start(109)


def test_each_failed_trial_start_doubles_the_breakers_open_time_up_to_the_maximum():
    breaker, now, lengths = opened(0), 0.0, []
    for _ in range(4):
        lengths.append(breaker.until - now)
        now = breaker.until
        breaker = breaker.begin_trial(now, 30).start_failed(now)
    assert lengths == [60, 120, 200, 200]


def test_breakers_open_time_is_short_again_only_after_a_stable_run():
    closed = opened(0).begin_trial(60, 30).start_succeeded()
    assert closed.state is BreakerState.CLOSED
    assert closed.trip(100).until == 100 + 120
    assert closed.ran_stably().trip(100).until == 100 + 60


def test_cancelled_trial_start_leaves_the_breaker_open_and_allows_another_at_once():
    breaker = opened(0).begin_trial(60, 30).cancel_trial(65)
    assert breaker.state is BreakerState.OPEN
    assert breaker.allows_start(65)
    assert breaker.opens == 1
