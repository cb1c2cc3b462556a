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


def test_request_submitted_without_an_engine_waits_until_one_is_ready(table):
    assert _submit(table, "a") == []
    assert table.count(RequestPhase.QUEUED) == 1
    assert table.engine_ready() == [SendToEngine("a")]
    assert table.is_running("a")


def test_embedding_submitted_while_generations_fill_their_slots_starts_at_once(table):
    table.engine_ready()
    for name in "abc":
        _submit(table, name)
    assert table.count(RequestPhase.QUEUED, Lane.GENERATE) == 1
    assert _submit(table, "embedding", lane=Lane.EMBED) == [SendToEngine("embedding")]


def test_new_engine_after_a_crash_starts_interrupted_requests_before_queued_ones(table):
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


def test_request_that_must_run_alone_starts_after_interrupted_requests_and_before_queued_ones():
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


def test_request_that_progresses_well_past_a_crash_no_longer_has_to_run_alone(table):
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


def test_request_whose_third_crash_comes_without_further_progress_fails(table):
    _request_with_two_strikes(table)
    table.worked("a", 257.0)
    assert _die(table, 10.0) == []
    table.engine_ready()
    table.worked("a", 257.0)
    assert [(action.id, action.code) for action in _die(table, 11.0)] == [("a", "engine_crashed")]


def test_request_with_progress_before_the_third_engine_crash_and_none_before_the_fourth_fails(table):
    _request_with_two_strikes(table)
    table.worked("a", 513.0)
    assert _die(table, 10.0) == []
    table.engine_ready()
    assert [action.id for action in _die(table, 11.0)] == ["a"]


def test_interrupted_request_starts_once_its_model_is_loaded_even_if_the_engine_is_not_ready_yet(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    _submit(table, "b", model="big")
    _submit(table, "queued", model="small")
    _die(table, 1.0)
    assert table.model_loaded_early("small") == [SendToEngine("a")]
    assert table.engine_ready() == [SendToEngine("b")], "the queued request waits for a slot"


def test_request_sent_to_an_engine_that_is_not_ready_yet_does_not_time_out(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    _submit(table, "b", model="big")
    _die(table, 1.0)
    table.model_loaded_early("small")
    assert [action.id for action in table.tick(2.0 + PARKED_WAIT_S)] == ["b"]
    assert table.is_running("a")


def test_request_suspected_of_crashing_engines_waits_for_a_ready_engine_even_if_its_model_is_loaded(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    for now in (1.0, 2.0):
        _die(table, now)
        actions = table.model_loaded_early("small")
    assert actions == []
    assert table.engine_ready() == [SendToEngine("a")]


def test_model_loaded_by_an_engine_that_died_before_it_was_ready_is_not_loaded_in_the_next_engine(table):
    table.engine_ready()
    _submit(table, "a", model="small")
    _die(table, 1.0)
    table.model_loaded_early("small")
    _die(table, 2.0, EngineDeath.PLANNED)
    assert table.model_loaded_early("other") == []
    assert table.count(RequestPhase.PARKED) == 1


def test_planned_engine_exit_counts_against_no_request(table):
    table.engine_ready()
    _submit(table, "a")
    for now in range(5):
        assert _die(table, float(now), EngineDeath.PLANNED) == []
        table.engine_ready()
    assert table.get("a").crashes.strikes == 0


def test_requests_without_an_engine_time_out_and_interrupted_ones_later_than_queued_ones(table):
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


def test_interrupted_request_still_waits_after_four_openings_of_the_breaker(table):
    """A request once could wait no longer than the breaker's 120 s: six answers were lost by that."""
    table.engine_ready()
    _submit(table, "parked")
    _die(table, 0.0)
    trial_at = 0.0
    for open_s in (60.0, 120.0, 240.0):
        trial_at += open_s
        assert table.tick(trial_at - 1, trial_at) == []
    assert table.tick(420.0 + 479.0, 900.0) == []
    assert table.engine_ready() == [SendToEngine("parked")]


def test_queued_request_waits_past_its_limit_for_an_engine_that_the_breaker_lets_start_before_it(table):
    _submit(table, "a", now=0.0)
    assert table.tick(120.0, trial_at=119.0) == []
    assert table.tick(119.0 + TRIAL_S - 1, trial_at=119.0) == []
    assert [action.id for action in table.tick(119.0 + TRIAL_S, trial_at=119.0)] == ["a"]


def test_queued_request_that_times_out_under_an_open_breaker_fails_with_the_time_to_the_engine_start(table):
    _submit(table, "a", now=0.0)
    assert table.tick(119.0, trial_at=200.0) == []
    (failed,) = table.tick(120.0, trial_at=200.0)
    assert failed.retry_after_s == 80.0
    assert "started again in 80 s" in failed.message


def test_new_request_is_refused_only_if_an_open_breaker_delays_the_engine_start_beyond_its_wait_limit(table):
    assert table.refusal(0.0, None) is None
    assert table.refusal(0.0, 120.0) is None
    late = table.refusal(0.0, 240.0)
    assert late is not None and (late.code, late.retry_after_s) == ("engine_unavailable", 240.0)
    table.engine_ready()
    assert table.refusal(0.0, 240.0) is None


def test_requests_never_time_out_while_an_engine_is_ready(table):
    table.engine_ready()
    for name in "abc":
        _submit(table, name, now=0.0)
    assert table.tick(1e6) == []


def test_cancelled_request_frees_its_slot_and_is_cancelled_on_the_engine_only_if_running(table):
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


def test_giving_up_the_engine_fails_all_waiting_requests_with_the_reason(table):
    _submit(table, "a")
    assert table.give_up("no libm") == [FailRequest("a", "engine_unavailable", "no libm")]


def test_repeated_token_of_a_request_is_dropped_and_a_missing_token_raises():
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


def test_request_whose_replay_is_interrupted_by_three_engine_kills_continues():
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


def test_request_whose_engines_are_killed_at_one_token_fails_after_a_bounded_number_of_kills(table):
    table.engine_ready()
    _submit(table, "poison")
    for number in range(KILLS_TO_FAIL - 1):
        assert _die(table, float(number), KILL) == []
        table.engine_ready()
    failed = _die(table, 100.0, KILL)
    assert [(action.id, action.code) for action in failed] == [("poison", "engine_crashed")]
    assert "killed" in failed[0].message


def test_kill_of_an_engine_without_running_requests_clears_every_request_of_suspicion(table):
    table.engine_ready()
    _submit(table, "a")
    _kill_until_suspect(table, "a")
    _die(table, 20.0, EngineDeath.PLANNED)
    assert _die(table, 21.0, KILL) == []
    assert not table.get("a").must_run_alone


def test_request_suspected_of_causing_engine_kills_starts_only_after_the_requests_queued_before_it(table):
    table.engine_ready()
    _submit(table, "suspect")
    _kill_until_suspect(table, "suspect")
    _submit(table, "early", now=7.0)
    _die(table, 8.0, KILL)
    _submit(table, "late", now=9.0)
    assert table.engine_ready() == [SendToEngine("early")]
    assert table.finished("early") == [SendToEngine("suspect")], "or new requests would keep it waiting"
    assert table.take_token("suspect", 0, 7) == (True, [SendToEngine("late")])


def test_requests_suspected_of_engine_kills_run_alone_one_after_another():
    table = RequestTable(RequestLimits(3, 3, 120))
    table.engine_ready()
    _submit(table, "a")
    _submit(table, "b")
    _kill_until_suspect(table, "a")
    assert table.is_running("a") and not table.is_running("b")
    _die(table, 10.0, KILL)
    assert table.engine_ready() == [SendToEngine("b")]


def test_death_of_a_hung_engine_counts_as_a_crash_against_the_request_that_it_returned_unfinished(table):
    table.engine_ready()
    _submit(table, "a")
    for number in range(3):
        assert table.is_running("a")
        assert table.returned_by_engine("a", float(number))
        actions = table.engine_died(EngineDeath.OWN_FAULT)
        table.engine_ready()
    assert [action.code for action in actions] == ["engine_crashed"]


def test_engine_death_causes_no_action_for_a_request_whose_client_has_disconnected(table):
    table.engine_ready()
    _submit(table, "a")
    table.engine_lost(1.0)
    table.cancel("a")
    assert table.engine_died(EngineDeath.OWN_FAULT) == []
