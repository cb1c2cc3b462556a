"""The request table: strikes, isolation, bounded waits."""

from __future__ import annotations

import pytest

from mlx_server.gateway.requests.request_lifecycle import (
    FORGIVEN_AFTER_TOKENS,
    IllegalStep,
    RequestLife,
    RequestPhase,
    TokenGap,
)
from mlx_server.gateway.requests.request_table import Lane, Limits, Refuse, RequestTable, Start, Withdraw


@pytest.fixture
def table() -> RequestTable:
    return RequestTable(Limits(max_running=2, max_queued=3, max_wait_s=120))


def _submit(table: RequestTable, name: str, now: float = 0.0, lane: Lane = Lane.GENERATE):
    return table.submit(name, "client", lane, now)


def test_submit_when_engine_is_away_waits_for_it(table):
    assert _submit(table, "a") == []
    assert table.count(RequestPhase.QUEUED) == 1
    assert table.engine_came() == [Start("a")]
    assert table.is_running("a")


def test_submit_when_generations_fill_their_lane_lets_an_embedding_through(table):
    table.engine_came()
    for name in "abc":
        _submit(table, name)
    assert table.count(RequestPhase.QUEUED, Lane.GENERATE) == 1
    assert _submit(table, "vector", lane=Lane.EMBED) == [Start("vector")]


def test_engine_left_when_it_returns_starts_the_parked_before_the_queued(table):
    table.engine_came()
    for name in "abc":
        _submit(table, name)
    assert table.engine_left(1.0) == []
    assert (table.count(RequestPhase.PARKED), table.count(RequestPhase.QUEUED)) == (2, 1)
    assert table.engine_came() == [Start("a"), Start("b")]


def test_request_in_flight_in_three_crashes_is_isolated_then_refused(table):
    table.engine_came()
    _submit(table, "poison")
    _submit(table, "bystander")
    for now in (1.0, 2.0):
        table.engine_left(now)
        started = table.engine_came()
    assert started == [Start("poison")]  # alone: two strikes each
    refused = table.engine_left(3.0)
    assert [(action.id, action.code) for action in refused] == [("poison", "engine_crashed")]
    assert table.engine_came() == [Start("bystander")]
    assert table.finished("bystander") == []


def test_suspect_when_it_waits_for_its_turn_holds_back_the_queue_but_not_the_parked(table):
    table = RequestTable(Limits(3, 5, 120))
    table.engine_came()
    _submit(table, "suspect")
    table.engine_left(1.0)
    table.engine_came()
    _submit(table, "other")
    table.engine_left(2.0)
    _submit(table, "new")
    assert table.engine_came() == [Start("other")]
    assert table.finished("other") == [Start("suspect")]
    assert table.finished("suspect") == [Start("new")]


def test_strikes_when_it_got_well_past_the_crash_are_forgiven(table):
    table.engine_came()
    _submit(table, "a")
    _submit(table, "b")
    for now in (1.0, 2.0):
        table.engine_left(now)
        table.engine_came()
    assert table.is_running("a") and not table.is_running("b")
    actions = [table.token("a", index, 7) for index in range(FORGIVEN_AFTER_TOKENS)]
    assert all(fresh for fresh, _ in actions)
    assert actions[-1] == (True, []), "b is a suspect still: it waits until it can be alone"
    assert table.life("a").strikes == 0
    assert table.engine_left(3.0) == []


def _crash_alone(table: RequestTable, now: float = 0.0) -> None:
    """Two crashes at the very begin: the one request there is has two strikes."""
    table.engine_came()
    _submit(table, "a")
    for at in (now, now + 1):
        assert table.engine_left(at) == []
        table.engine_came()
    assert (life := table.life("a")) is not None and life.alone


@pytest.mark.parametrize("progress", ["token", "prompt", "load"])
def test_request_that_gets_on_between_crashes_is_never_refused_however_many(table, progress):
    _crash_alone(table)
    for number in range(1, 10):
        if progress == "token":
            table.token("a", number - 1, 7)
        else:  # a piece of the prompt more, or a slice of the model
            table.worked("a", number if progress == "prompt" else number / 10)
        assert table.engine_left(10.0 + number) == []
        table.engine_came()
    assert table.is_running("a")


def test_request_that_gets_as_far_as_before_and_no_further_is_refused(table):
    _crash_alone(table)
    table.worked("a", 257.0)
    assert table.engine_left(10.0) == []
    table.engine_came()
    table.worked("a", 257.0)
    assert [(action.id, action.code) for action in table.engine_left(11.0)] == [("a", "engine_crashed")]


def test_work_towards_a_token_counts_for_nothing_once_another_engine_must_do_it_again(table):
    _crash_alone(table)
    table.worked("a", 513.0)
    assert table.engine_left(10.0) == []
    table.engine_came()
    assert [action.id for action in table.engine_left(11.0)] == ["a"], "it had not begun"


def test_model_came_before_the_engine_is_ready_takes_up_what_was_parked_with_it(table):
    table.engine_came()
    table.submit("a", "client", Lane.GENERATE, 0.0, "small")
    table.submit("b", "client", Lane.GENERATE, 0.0, "big")
    table.submit("queued", "client", Lane.GENERATE, 0.0, "small")
    table.engine_left(1.0)
    assert table.model_came("small") == [Start("a")]
    assert table.engine_came() == [Start("b")], "the queue waits for a place"


def test_tick_before_the_engine_is_ready_spares_what_has_gone_ahead(table):
    table.engine_came()
    table.submit("a", "client", Lane.GENERATE, 0.0, "small")
    table.submit("b", "client", Lane.GENERATE, 0.0, "big")
    table.engine_left(1.0)
    table.model_came("small")
    assert [action.id for action in table.tick(125.0)] == ["b"]
    assert table.is_running("a")


def test_model_came_does_not_let_a_suspect_go_ahead(table):
    table.engine_came()
    table.submit("a", "client", Lane.GENERATE, 0.0, "small")
    for now in (1.0, 2.0):
        table.engine_left(now)
        actions = table.model_came("small")
    assert actions == []
    assert table.engine_came() == [Start("a")]


def test_model_that_came_is_gone_with_its_engine(table):
    table.engine_came()
    table.submit("a", "client", Lane.GENERATE, 0.0, "small")
    table.engine_left(1.0)
    table.model_came("small")
    table.engine_left(2.0, blame=False)
    assert table.model_came("other") == []
    assert table.count(RequestPhase.PARKED) == 1


def test_engine_stopped_on_purpose_leaves_no_strike(table):
    table.engine_came()
    _submit(table, "a")
    for now in range(5):
        assert table.engine_left(float(now), blame=False) == []
        table.engine_came()
    assert table.life("a").strikes == 0
    assert table.life("a").crashes == 5


def test_tick_when_engine_stays_away_refuses_queued_and_parked_alike(table):
    table.engine_came()
    _submit(table, "parked", now=0.0)
    table.engine_left(10.0)
    _submit(table, "late", now=100.0)
    assert table.tick(129.0) == []
    assert [action.id for action in table.tick(130.0)] == ["parked"]
    refused = table.tick(220.0)
    assert [(action.id, action.code) for action in refused] == [("late", "engine_unavailable")]
    assert table.count(RequestPhase.QUEUED) == table.count(RequestPhase.PARKED) == 0


def test_tick_when_the_engine_is_here_never_refuses(table):
    table.engine_came()
    for name in "abc":
        _submit(table, name, now=0.0)
    assert table.tick(1e6) == []


def test_cancel_in_each_phase_frees_the_place_and_tells_only_an_engine_that_has_it(table):
    table.engine_came()
    for name in "abc":
        _submit(table, name)
    assert table.cancel("c") == []
    assert table.cancel("a") == [Withdraw("a")]
    table.engine_left(1.0)
    assert table.cancel("b") == []
    assert table.cancel("b") == []
    assert table.token("a", 0, 1) == (False, [])
    assert table.finished("a") == []


def test_give_up_refuses_all_that_wait_with_the_reason(table):
    _submit(table, "a")
    assert table.give_up("no libm") == [Refuse("a", "engine_unavailable", "no libm")]


def test_token_when_one_is_missing_is_an_error_and_when_double_is_dropped():
    life = RequestLife("a", 0.0)
    life.start()
    assert life.token(0, 5) is True
    assert life.token(0, 5) is False
    with pytest.raises(TokenGap):
        life.token(2, 5)
    life.finish()
    assert life.ended
    with pytest.raises(IllegalStep):
        life.cancel()
