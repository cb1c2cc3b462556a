"""The request table: what runs, waits, continues after a crash, and fails."""

from __future__ import annotations

import pytest

from mlx_server.gateway.requests.table.actions import CancelOnEngine, FailRequest, SendToEngine
from mlx_server.gateway.requests.table.admission import Lane
from mlx_server.gateway.requests.table.crash_policy import (
    KILLS_TO_FAIL,
    KILLS_TO_RUN_ALONE,
    TOKENS_TO_CANCEL_STRIKES,
    EngineDeath,
)
from mlx_server.gateway.requests.table.engine_wait import PARKED_WAIT_S, TRIAL_S, RequestLimits
from mlx_server.gateway.requests.table.request_lifecycle import (
    IllegalTransition,
    RequestLifecycle,
    RequestPhase,
    TokenGap,
)
from mlx_server.gateway.requests.table.request_table import RequestTable


@pytest.fixture
def table() -> RequestTable:
    return RequestTable(RequestLimits(max_running=2, max_queued=3, max_wait_s=120))


def _submit(table: RequestTable, name: str, now: float = 0.0, lane: Lane = Lane.GENERATE, model: str = ""):
    return table.submit(name, "client", lane, now, model)


def _die(table: RequestTable, now: float, death: EngineDeath = EngineDeath.OWN_FAULT):
    """Let the engine die, and return the table's actions."""
    table.engine_lost(now)
    return table.engine_died(death)


def test_submit_without_an_engine_waits_until_one_is_ready(table):
    assert _submit(table, "a") == []
    assert table.count(RequestPhase.QUEUED) == 1
    assert table.engine_ready() == [SendToEngine("a")]
    assert table.is_running("a")


def test_submit_an_embedding_while_generations_fill_their_lane_starts_it(table):
    table.engine_ready()
    for name in "abc":
        _submit(table, name)
    assert table.count(RequestPhase.QUEUED, Lane.GENERATE) == 1
    assert _submit(table, "embedding", lane=Lane.EMBED) == [SendToEngine("embedding")]


def test_engine_ready_after_a_crash_starts_parked_requests_before_queued_ones(table):
    table.engine_ready()
    for name in "abc":
        _submit(table, name)
    assert _die(table, 1.0) == []
    assert (table.count(RequestPhase.PARKED), table.count(RequestPhase.QUEUED)) == (2, 1)
    assert table.engine_ready() == [SendToEngine("a"), SendToEngine("b")]


def test_request_that_crashes_three_engines_runs_alone_and_then_fails(table):
    table.engine_ready()
    _submit(table, "poison")
    _submit(table, "bystander")
    for now in (1.0, 2.0):
        _die(table, now)
        started = table.engine_ready()
    assert started == [SendToEngine("poison")], "both have two strikes, so that each must run alone"
    failed = _die(table, 3.0)
    assert [(action.id, action.code) for action in failed] == [("poison", "engine_crashed")]
    assert table.engine_ready() == [SendToEngine("bystander")]
    assert table.finished("bystander") == []


def test_suspect_waiting_to_run_alone_delays_queued_but_not_parked_requests():
    table = RequestTable(RequestLimits(3, 5, 120))
    table.engine_ready()
    _submit(table, "suspect")
    _die(table, 1.0)
    table.engine_ready()
    _submit(table, "other")
    _die(table, 2.0)
    _submit(table, "new")
    assert table.engine_ready() == [SendToEngine("other")]
    assert table.finished("other") == [SendToEngine("suspect")]
    assert table.finished("suspect") == [SendToEngine("new")]


def test_strikes_are_cancelled_by_progress_well_past_the_crash(table):
    table.engine_ready()
    _submit(table, "a")
    _submit(table, "b")
    for now in (1.0, 2.0):
        _die(table, now)
        table.engine_ready()
    assert table.is_running("a") and not table.is_running("b")
    results = [table.take_token("a", index, 7) for index in range(TOKENS_TO_CANCEL_STRIKES)]
    assert all(is_new for is_new, _ in results)
    assert results[-1] == (True, []), "b is a suspect still, and waits until it can run alone"
    assert table.get("a").crashes.strikes == 0
    assert _die(table, 3.0) == []


def _request_with_two_strikes(table: RequestTable) -> None:
    """Submit the request "a", the only one, and let two engines crash before it made any progress."""
    table.engine_ready()
    _submit(table, "a")
    for now in (0.0, 1.0):
        assert _die(table, now) == []
        table.engine_ready()
    request = table.get("a")
    assert request is not None and request.must_run_alone


@pytest.mark.parametrize("progress", ["token", "prompt", "load"])
def test_request_that_makes_progress_between_crashes_never_fails(table, progress):
    _request_with_two_strikes(table)
    for number in range(1, 10):
        if progress == "token":
            table.take_token("a", number - 1, 7)
        else:  # one more part of the prompt, or of the model
            table.worked("a", number if progress == "prompt" else number / 10)
        assert _die(table, 10.0 + number) == []
        table.engine_ready()
    assert table.is_running("a")


def test_request_that_makes_no_more_progress_than_at_the_last_crash_fails(table):
    _request_with_two_strikes(table)
    table.worked("a", 257.0)
    assert _die(table, 10.0) == []
    table.engine_ready()
    table.worked("a", 257.0)
    assert [(action.id, action.code) for action in _die(table, 11.0)] == [("a", "engine_crashed")]


def test_request_with_progress_on_one_engine_and_none_on_the_next_fails(table):
    _request_with_two_strikes(table)
    table.worked("a", 513.0)
    assert _die(table, 10.0) == []
    table.engine_ready()
    assert [action.id for action in _die(table, 11.0)] == ["a"]


def test_model_loaded_early_starts_its_parked_requests(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    _submit(table, "b", model="big")
    _submit(table, "queued", model="small")
    _die(table, 1.0)
    assert table.model_loaded_early("small") == [SendToEngine("a")]
    assert table.engine_ready() == [SendToEngine("b")], "the queued request waits for a slot"


def test_tick_does_not_fail_a_request_that_was_started_early(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    _submit(table, "b", model="big")
    _die(table, 1.0)
    table.model_loaded_early("small")
    assert [action.id for action in table.tick(2.0 + PARKED_WAIT_S)] == ["b"]
    assert table.is_running("a")


def test_model_loaded_early_does_not_start_a_suspect(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    for now in (1.0, 2.0):
        _die(table, now)
        actions = table.model_loaded_early("small")
    assert actions == []
    assert table.engine_ready() == [SendToEngine("a")]


def test_model_loaded_early_is_forgotten_with_its_engine(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    _die(table, 1.0)
    table.model_loaded_early("small")
    _die(table, 2.0, EngineDeath.PLANNED)
    assert table.model_loaded_early("other") == []
    assert table.count(RequestPhase.PARKED) == 1


def test_engine_lost_as_planned_leaves_no_strike(table):
    table.engine_ready()
    _submit(table, "a")
    for now in range(5):
        assert _die(table, float(now), EngineDeath.PLANNED) == []
        table.engine_ready()
    assert table.get("a").crashes.strikes == 0


def test_tick_without_an_engine_for_too_long_fails_queued_and_later_parked_requests(table):
    table.engine_ready()
    _submit(table, "parked", now=0.0)
    _die(table, 10.0)
    _submit(table, "queued", now=100.0)
    assert table.tick(219.0) == []
    failed = table.tick(220.0)
    assert [(action.id, action.code) for action in failed] == [("queued", "engine_unavailable")]
    assert table.tick(10.0 + PARKED_WAIT_S - 1) == []
    assert [action.id for action in table.tick(10.0 + PARKED_WAIT_S)] == ["parked"]
    assert table.count(RequestPhase.QUEUED) == table.count(RequestPhase.PARKED) == 0


def test_parked_request_outlives_four_openings_of_the_breaker(table):
    """The breaker's 120 s were just as long as a request could wait: six answers were lost to it."""
    table.engine_ready()
    _submit(table, "parked")
    _die(table, 0.0)
    trial_at = 0.0
    for open_s in (60.0, 120.0, 240.0):
        trial_at += open_s
        assert table.tick(trial_at - 1, trial_at) == []
    assert table.tick(420.0 + 479.0, 900.0) == []
    assert table.engine_ready() == [SendToEngine("parked")]


def test_queued_request_waits_out_a_trial_that_comes_within_its_time(table):
    _submit(table, "a", now=0.0)
    assert table.tick(120.0, trial_at=119.0) == []
    assert table.tick(119.0 + TRIAL_S - 1, trial_at=119.0) == []
    assert [action.id for action in table.tick(119.0 + TRIAL_S, trial_at=119.0)] == ["a"]


def test_queued_request_whose_time_ends_before_the_trial_fails_with_the_time_of_the_trial(table):
    _submit(table, "a", now=0.0)
    assert table.tick(119.0, trial_at=200.0) == []
    (failed,) = table.tick(120.0, trial_at=200.0)
    assert failed.retry_after_s == 80.0
    assert "started again in 80 s" in failed.message


def test_new_request_is_refused_only_if_the_trial_comes_too_late_for_it(table):
    assert table.refusal(0.0, None) is None
    assert table.refusal(0.0, 120.0) is None
    late = table.refusal(0.0, 240.0)
    assert late is not None and (late.code, late.retry_after_s) == ("engine_unavailable", 240.0)
    table.engine_ready()
    assert table.refusal(0.0, 240.0) is None


def test_tick_with_an_engine_fails_no_request(table):
    table.engine_ready()
    for name in "abc":
        _submit(table, name, now=0.0)
    assert table.tick(1e6) == []


def test_cancel_in_each_phase_frees_the_slot_and_reaches_only_an_engine_that_has_the_request(table):
    table.engine_ready()
    for name in "abc":
        _submit(table, name)
    assert table.cancel("c") == []
    assert table.cancel("a") == [CancelOnEngine("a")]
    _die(table, 1.0)
    assert table.cancel("b") == []
    assert table.cancel("b") == []
    assert table.take_token("a", 0, 1) == (False, [])
    assert table.finished("a") == []


def test_give_up_fails_all_waiting_requests_with_the_reason(table):
    _submit(table, "a")
    assert table.give_up("no libm") == [FailRequest("a", "engine_unavailable", "no libm")]


def test_take_token_drops_a_repeated_token_and_raises_for_a_missing_one():
    request = RequestLifecycle("a", 0.0)
    request.start()
    assert request.take_token(0, 5) is True
    assert request.take_token(0, 5) is False
    with pytest.raises(TokenGap):
        request.take_token(2, 5)
    request.finish()
    assert request.phase is RequestPhase.DONE
    with pytest.raises(IllegalTransition):
        request.cancel()


KILL = EngineDeath.UNKNOWN_KILL


def test_request_replayed_during_three_kills_of_others_continues():
    """Of 24 streams under five random SIGKILLs one was refused: three kills within 7.1 s, 15 tokens, and no
    progress between the last two, since each new engine was killed while it replayed."""
    table = RequestTable(RequestLimits(24, 64, 120))
    table.engine_ready()
    for number in range(24):
        _submit(table, f"s{number}")
    for index in range(15):
        table.take_token("s7", index, 7)
    for now in (1.0, 4.6, 8.1):
        assert _die(table, now, KILL) == []
        table.engine_ready()
    assert table.count(RequestPhase.RUNNING) == 24


def _kill_until_suspect(table: RequestTable, name: str) -> None:
    for number in range(KILLS_TO_RUN_ALONE):
        assert _die(table, 1.0 + number, KILL) == []
        table.engine_ready()
    request = table.get(name)
    assert request is not None and request.must_run_alone


def test_request_whose_engines_are_killed_at_one_token_fails_after_a_bounded_number(table):
    table.engine_ready()
    _submit(table, "poison")
    for number in range(KILLS_TO_FAIL - 1):
        assert _die(table, float(number), KILL) == []
        table.engine_ready()
    failed = _die(table, 100.0, KILL)
    assert [(action.id, action.code) for action in failed] == [("poison", "engine_crashed")]
    assert "killed" in failed[0].message


def test_kill_of_an_engine_without_requests_clears_every_request_of_suspicion(table):
    table.engine_ready()
    _submit(table, "a")
    _kill_until_suspect(table, "a")
    _die(table, 20.0, EngineDeath.PLANNED)
    assert _die(table, 21.0, KILL) == []
    assert not table.get("a").must_run_alone


def test_request_suspected_of_kills_runs_after_those_that_waited_before_it(table):
    table.engine_ready()
    _submit(table, "suspect")
    _kill_until_suspect(table, "suspect")
    _submit(table, "early", now=7.0)
    _die(table, 8.0, KILL)
    _submit(table, "late", now=9.0)
    assert table.engine_ready() == [SendToEngine("early")]
    assert table.finished("early") == [SendToEngine("suspect")], "or new requests would keep it waiting"
    assert table.take_token("suspect", 0, 7) == (True, [SendToEngine("late")])


def test_requests_suspected_of_kills_run_alone_one_after_another():
    table = RequestTable(RequestLimits(3, 3, 120))
    table.engine_ready()
    _submit(table, "a")
    _submit(table, "b")
    _kill_until_suspect(table, "a")
    assert table.is_running("a") and not table.is_running("b")
    _die(table, 10.0, KILL)
    assert table.engine_ready() == [SendToEngine("b")]


def test_engine_died_judges_the_requests_that_a_hung_engine_gave_back(table):
    table.engine_ready()
    _submit(table, "a")
    for number in range(3):
        assert table.is_running("a")
        assert table.returned_by_engine("a", float(number))
        actions = table.engine_died(EngineDeath.OWN_FAULT)
        table.engine_ready()
    assert [action.code for action in actions] == ["engine_crashed"]


def test_engine_died_after_the_client_has_left_changes_nothing(table):
    table.engine_ready()
    _submit(table, "a")
    table.engine_lost(1.0)
    table.cancel("a")
    assert table.engine_died(EngineDeath.OWN_FAULT) == []
