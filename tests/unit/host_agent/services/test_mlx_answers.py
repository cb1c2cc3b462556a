"""What the gateway's /health means for its life, and for the engine's row."""

from __future__ import annotations

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.mlx.service import engine_row, judge
from vestal.supervision import State


@pytest.mark.parametrize(
    ("status", "ok", "state", "alive"),
    [
        ("ok", True, State.READY, True),
        ("starting", False, State.STARTING, True),
        ("recovering", False, State.BUSY, True),
        ("draining", False, State.BUSY, True),
        ("failed", True, State.DEGRADED, True),
    ],
)
def test_gateway_that_answers_is_alive_whatever_its_engine_does(status, ok, state, alive):
    result = judge(Reply(200, {"status": status, "engine": {"state": "failed"}}))
    assert (result.ok, result.state, result.alive) == (ok, state, alive)


@pytest.mark.parametrize("reply", [Reply(500, None), Reply(200, []), Reply(200, {"status": "what"})])
def test_answer_that_means_nothing_is_a_failure(reply: Reply):
    assert not judge(reply).alive


def test_engine_row_has_what_the_gateway_tells():
    engine = {"pid": 7, "state": "ready", "restarts": 3, "last_crash": {"cause": "killed"}}
    row = engine_row(Reply(200, {"status": "ok", "engine": engine, "models": {"loaded": ["a"]}}))
    assert (row.state, row.process_pid, row.restart_count) == (State.READY, 7, 3)
    assert row.extra["models"] == ["a"]


@pytest.mark.parametrize("body", [None, {}, {"engine": None}, {"engine": {"state": "odd", "pid": "x"}}])
def test_engine_row_of_an_odd_answer_is_not_ready(body):
    assert not engine_row(Reply(200, body)).well
