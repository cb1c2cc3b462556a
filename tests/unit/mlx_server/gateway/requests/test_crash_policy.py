"""The crash policy: a request continues after a crash, later alone, and fails only on evidence."""

from __future__ import annotations

import pytest

from mlx_server.gateway.requests.table.crash_policy import (
    KILLS_TO_FAIL,
    KILLS_TO_RUN_ALONE,
    TOKENS_TO_CANCEL_STRIKES,
    CrashHistory,
    EngineDeath,
)

OWN_FAULT, UNKNOWN_KILL = EngineDeath.OWN_FAULT, EngineDeath.UNKNOWN_KILL


def _two_crashes_at(tokens: int) -> CrashHistory:
    crashes = CrashHistory()
    assert crashes.engine_died(OWN_FAULT, (tokens, 0.0), alone=False)
    assert not crashes.must_run_alone
    assert crashes.engine_died(OWN_FAULT, (tokens, 0.0), alone=False)
    return crashes


def _killed(crashes: CrashHistory, times: int, tokens: int = 5, *, alone: bool = True) -> bool:
    """Kill the request's engine `times` times, and return whether the request may continue."""
    return all(crashes.engine_died(UNKNOWN_KILL, (tokens, 0.0), alone) for _ in range(times))


def test_request_that_crashed_two_engines_must_run_alone():
    assert _two_crashes_at(0).must_run_alone


def test_request_fails_at_the_third_engine_crash_without_progress():
    assert not _two_crashes_at(5).engine_died(OWN_FAULT, (5, 0.0), alone=True)


def test_request_that_makes_progress_between_engine_crashes_continues():
    crashes = _two_crashes_at(5)
    assert crashes.engine_died(OWN_FAULT, (5, 0.5), alone=True), "a part of the prompt is progress"
    assert crashes.engine_died(OWN_FAULT, (6, 0.0), alone=True), "a token is more than any part of the prompt"
    assert not crashes.engine_died(OWN_FAULT, (5, 2.0), alone=True), "fewer tokens are not progress"


def test_request_that_progresses_well_past_its_last_engine_crash_has_its_crash_count_reset():
    crashes = _two_crashes_at(5)
    crashes.progressed(5 + TOKENS_TO_CANCEL_STRIKES - 1)
    assert crashes.must_run_alone
    crashes.progressed(5 + TOKENS_TO_CANCEL_STRIKES)
    assert crashes.strikes == 0


def test_planned_engine_exits_count_against_no_request():
    crashes = CrashHistory()
    assert all(crashes.engine_died(EngineDeath.PLANNED, (5, 0.0), alone=True) for _ in range(100))
    assert not crashes.must_run_alone


def test_request_whose_engine_is_killed_repeatedly_at_one_token_runs_alone_and_then_fails():
    crashes = CrashHistory()
    assert _killed(crashes, KILLS_TO_RUN_ALONE - 1, alone=False)
    assert not crashes.must_run_alone
    assert _killed(crashes, 1, alone=False)
    assert crashes.must_run_alone
    assert _killed(crashes, KILLS_TO_FAIL - 1)
    assert not _killed(crashes, 1)


def test_engine_kills_while_other_requests_run_never_fail_a_request():
    assert _killed(CrashHistory(), 1000, alone=False)


@pytest.mark.parametrize("place", [(6, 0.0), (5, 0.5), (4, 0.0)])
def test_engine_kill_at_another_point_of_the_request_than_the_previous_kills_counts_as_the_first(place):
    crashes = CrashHistory()
    assert _killed(crashes, KILLS_TO_FAIL - 1)
    assert crashes.engine_died(UNKNOWN_KILL, place, alone=True)
    assert not crashes.must_run_alone
    assert _killed(crashes, KILLS_TO_FAIL - 1)


def test_new_token_of_a_request_resets_its_count_of_engine_kills():
    crashes = CrashHistory()
    assert _killed(crashes, KILLS_TO_FAIL - 1)
    crashes.progressed(6)
    assert not crashes.must_run_alone
    assert crashes.kills_alone == 0


def test_unexplained_engine_kills_do_not_count_as_crashes_of_a_request():
    crashes = CrashHistory()
    assert _killed(crashes, KILLS_TO_FAIL - 1)
    assert crashes.strikes == 0
    assert crashes.engine_died(OWN_FAULT, (5, 0.0), alone=True)
