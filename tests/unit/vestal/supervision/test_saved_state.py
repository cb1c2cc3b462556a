from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from vestal.supervision import Breaker, BreakerPolicy, BreakerState, RestartPolicy
from vestal.supervision.lifecycle.child_state import ChildState, initial_state
from vestal.supervision.lifecycle.saved_state import restored, to_record

POLICY = RestartPolicy(breaker=BreakerPolicy(open_s=60, max_open_s=240))


def remembered(
    model: ChildState, now: float, wall: float, *, later_now: float, later_wall: float
) -> ChildState:
    record = json.loads(json.dumps(to_record(model, now, wall)))
    return restored(initial_state(POLICY), record, later_now, later_wall)


def test_open_breaker_is_open_for_what_is_left_of_it_though_monotonic_time_began_anew():
    model = replace(initial_state(POLICY), breaker=Breaker(POLICY.breaker).trip(5000))
    again = remembered(model, 5000, 1e9, later_now=3, later_wall=1e9 + 20)
    assert again.breaker.state is BreakerState.OPEN
    assert again.breaker.until == pytest.approx(3 + 40)
    assert again.breaker.opens == 1


def test_open_breaker_under_a_wall_clock_set_back_stays_within_the_longest_open_time():
    model = replace(initial_state(POLICY), breaker=Breaker(POLICY.breaker).trip(0))
    again = remembered(model, 0, 1e9, later_now=0, later_wall=0)
    assert again.breaker.until <= 240


def test_trial_cut_short_is_due_again_at_once():
    model = replace(initial_state(POLICY), breaker=Breaker(POLICY.breaker).trip(0).admit(60, 30))
    again = remembered(model, 60, 1e9, later_now=0, later_wall=1e9)
    assert again.breaker.state is BreakerState.OPEN
    assert again.breaker.admits(0)


def test_restarts_in_the_window_and_a_stop_by_hand_are_remembered():
    model = replace(initial_state(POLICY), by_hand=True, intensity=POLICY.intensity.add(100).add(390))
    again = remembered(model, 400, 1e9, later_now=0, later_wall=1e9 + 10)
    assert again.by_hand
    assert again.intensity.times == pytest.approx((-20.0,))


@pytest.mark.parametrize("record", [None, {}, {"breaker": 3}, {"breaker": {}, "restarts": "x"}])
def test_record_that_is_not_understood_is_as_if_never_written(record: Any):
    assert restored(initial_state(POLICY), record, 0, 0) == initial_state(POLICY)
