"""What the next supervisor restores from the record of an earlier one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from vestal.supervision import Breaker, BreakerPolicy, BreakerState, RestartPolicy
from vestal.supervision.lifecycle.child_state import ChildState, initial_state
from vestal.supervision.lifecycle.saved_state import restore, to_record

POLICY = RestartPolicy(breaker=BreakerPolicy(open_s=60, max_open_s=240))


def saved_and_restored(
    child: ChildState, now: float, wall: float, *, later_now: float, later_wall: float
) -> ChildState:
    record = json.loads(json.dumps(to_record(child, now, wall)))
    return restore(initial_state(POLICY), record, later_now, later_wall)


def test_saved_open_breaker_is_restored_with_its_remaining_time():
    child = replace(initial_state(POLICY), breaker=Breaker(POLICY.breaker).trip(5000))
    restored = saved_and_restored(child, 5000, 1e9, later_now=3, later_wall=1e9 + 20)
    assert restored.breaker.state is BreakerState.OPEN
    assert restored.breaker.until == pytest.approx(3 + 40)
    assert restored.breaker.opens == 1


def test_saved_open_breaker_restored_after_the_clock_was_set_back_stays_open_for_its_maximum_time_at_most():
    child = replace(initial_state(POLICY), breaker=Breaker(POLICY.breaker).trip(0))
    restored = saved_and_restored(child, 0, 1e9, later_now=0, later_wall=0)
    assert restored.breaker.until <= 240


def test_saved_breaker_with_an_interrupted_trial_start_allows_another_at_once():
    child = replace(initial_state(POLICY), breaker=Breaker(POLICY.breaker).trip(0).begin_trial(60, 30))
    restored = saved_and_restored(child, 60, 1e9, later_now=0, later_wall=1e9)
    assert restored.breaker.state is BreakerState.OPEN
    assert restored.breaker.allows_start(0)


def test_saved_recent_restarts_and_a_stop_by_hand_are_restored():
    intensity = POLICY.intensity.add(100).add(390)
    child = replace(initial_state(POLICY), stopped_by_hand=True, intensity=intensity)
    restored = saved_and_restored(child, 400, 1e9, later_now=0, later_wall=1e9 + 10)
    assert restored.stopped_by_hand
    assert restored.intensity.times == pytest.approx((-20.0,))


def test_restart_count_is_restored_from_the_saved_state_or_zero_if_missing():
    """Earlier, a supervisor that adopted a child showed 0 restarts, although the previous one had made
    five.
    """
    child = replace(initial_state(POLICY), restarts=5)
    assert saved_and_restored(child, 0, 1e9, later_now=0, later_wall=1e9).restarts == 5
    record = to_record(child, 0, 1e9)
    del record["restart_count"]
    assert restore(initial_state(POLICY), record, 0, 1e9).restarts == 0


def test_saved_restarts_keep_their_times_and_their_weights_in_the_restart_limit_when_restored():
    child = replace(initial_state(POLICY), intensity=POLICY.intensity.add(100, 0.1).add(110))
    restored = saved_and_restored(child, 120, 1e9, later_now=0, later_wall=1e9)
    assert restored.intensity.restarts == ((pytest.approx(-20.0), 0.1), (pytest.approx(-10.0), 1.0))


def test_saved_state_without_weights_of_restarts_counts_each_restart_fully():
    child = replace(initial_state(POLICY), intensity=POLICY.intensity.add(100, 0.1))
    record = to_record(child, 120, 1e9)
    del record["restart_weights"]
    assert restore(initial_state(POLICY), record, 0, 1e9).intensity.restarts == ((pytest.approx(-20.0), 1.0),)


@pytest.mark.parametrize("record", [None, {}, {"breaker": 3}, {"breaker": {}, "restarts": "x"}])
def test_saved_state_in_an_unknown_format_changes_nothing(record: Any):
    assert restore(initial_state(POLICY), record, 0, 0) == initial_state(POLICY)
