from __future__ import annotations

import pytest

from vestal.supervision import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(failures=3, open_s=60, max_open_s=200)


def opened(now: float = 0.0) -> Breaker:
    return Breaker(POLICY).failed(now).failed(now).failed(now)


def test_failed_below_the_limit_stays_closed_and_a_success_forgets():
    breaker = Breaker(POLICY).failed(0).failed(1).succeeded().failed(2).failed(3)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admits(3)


def test_failed_at_the_limit_opens_for_open_s():
    breaker = opened(10)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admits(69.9)
    assert breaker.admits(70)


def test_admit_before_its_time_is_refused():
    with pytest.raises(ValueError, match="admits no start"):
        opened(0).admit(59, 5)


def test_admit_after_open_s_is_one_trial_and_no_other():
    trial = opened(0).admit(60, 30)
    assert trial.state is BreakerState.HALF_OPEN
    assert not trial.admits(89)


def test_trial_that_never_reports_expires_and_the_next_is_admitted():
    """resilience4j 903: a half-open breaker whose trial vanished stayed so for ever."""
    trial = opened(0).admit(60, 30)
    assert trial.admits(90)
    assert trial.admit(90, 30).until == 120


def test_trial_that_makes_progress_gets_more_time():
    trial = opened(0).admit(60, 30).extend(80, 30)
    assert not trial.admits(109)


def test_trial_that_fails_opens_for_twice_as_long_up_to_the_maximum():
    breaker, now, lengths = opened(0), 0.0, []
    for _ in range(4):
        lengths.append(breaker.until - now)
        now = breaker.until
        breaker = breaker.admit(now, 30).failed(now)
    assert lengths == [60, 120, 200, 200]


def test_trial_that_succeeds_closes_but_the_doubling_is_forgotten_only_once_settled():
    closed = opened(0).admit(60, 30).succeeded()
    assert closed.state is BreakerState.CLOSED
    assert closed.trip(100).until == 100 + 120
    assert closed.settled().trip(100).until == 100 + 60


def test_trial_called_off_leaves_the_next_start_the_trial():
    breaker = opened(0).admit(60, 30).abandon(65)
    assert breaker.state is BreakerState.OPEN
    assert breaker.admits(65)
    assert breaker.opens == 1
