"""The request table: strikes, isolation, bounded waits."""

from __future__ import annotations

import pytest

from mlx_server.gateway.request_lifecycle import (
    FORGIVEN_AFTER_TOKENS,
    IllegalStep,
    Phase,
    RequestLife,
    TokenGap,
)
from mlx_server.gateway.request_table import Lane, Limits, Refuse, RequestTable, Start, Withdraw


@pytest.fixture
def table() -> RequestTable:
    return RequestTable(Limits(max_running=2, max_queued=3, max_wait_s=120))


def _submit(table: RequestTable, name: str, now: float = 0.0, lane: Lane = Lane.GENERATE):
    return table.submit(name, "client", lane, now)


def test_submit_when_engine_is_away_waits_for_it(table):
    assert _submit(table, "a") == []
    assert table.count(Phase.QUEUED) == 1
    assert table.engine_came() == [Start("a")]
    assert table.is_running("a")


def test_submit_when_generations_fill_their_lane_lets_an_embedding_through(table):
    table.engine_came()
    for name in "abc":
        _submit(table, name)
    assert table.count(Phase.QUEUED, Lane.GENERATE) == 1
    assert _submit(table, "vector", lane=Lane.EMBED) == [Start("vector")]


def test_engine_left_when_it_returns_starts_the_parked_before_the_queued(table):
    table.engine_came()
    for name in "abc":
        _submit(table, name)
    assert table.engine_left(1.0) == []
    assert (table.count(Phase.PARKED), table.count(Phase.QUEUED)) == (2, 1)
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
    assert table.count(Phase.QUEUED) == table.count(Phase.PARKED) == 0


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
