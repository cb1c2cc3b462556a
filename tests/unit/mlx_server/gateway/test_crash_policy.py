"""The crash policy: a request goes on after a crash, later alone, and fails only without progress."""

from __future__ import annotations

from mlx_server.gateway.requests.crash_policy import TOKENS_TO_CANCEL_STRIKES, CrashHistory


def _two_crashes_at(tokens: int) -> CrashHistory:
    crashes = CrashHistory()
    assert crashes.engine_crashed((tokens, 0.0))
    assert not crashes.must_run_alone
    assert crashes.engine_crashed((tokens, 0.0))
    return crashes


def test_crash_history_after_two_crashes_runs_alone():
    assert _two_crashes_at(0).must_run_alone


def test_crash_history_at_the_third_crash_without_progress_may_not_go_on():
    assert not _two_crashes_at(5).engine_crashed((5, 0.0))


def test_crash_history_with_any_progress_between_crashes_goes_on():
    crashes = _two_crashes_at(5)
    assert crashes.engine_crashed((5, 0.5)), "a part of the prompt is progress"
    assert crashes.engine_crashed((6, 0.0)), "a token is more progress than any part of the prompt"
    assert not crashes.engine_crashed((5, 2.0)), "fewer tokens than at an earlier crash are no progress"


def test_crash_history_well_past_the_last_crash_has_no_strikes():
    crashes = _two_crashes_at(5)
    crashes.progressed(5 + TOKENS_TO_CANCEL_STRIKES - 1)
    assert crashes.must_run_alone
    crashes.progressed(5 + TOKENS_TO_CANCEL_STRIKES)
    assert crashes.strikes == 0
