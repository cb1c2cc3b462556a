"""What the gateway's answer to GET /health says about the gateway and its engine."""

from __future__ import annotations

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.mlx.answers import judge_gateway, read_engine_status
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
def test_gateway_that_answers_health_checks_is_alive_even_if_its_engine_is_not(status, ok, state, alive):
    result = judge_gateway(Reply(200, {"status": status, "engine": {"state": "failed"}}), 7)
    assert (result.ok, result.state, result.alive) == (ok, state, alive)


@pytest.mark.parametrize("reply", [Reply(500, None), Reply(200, []), Reply(200, {"status": "what"})])
def test_gateway_with_an_unknown_health_answer_is_not_alive(reply: Reply):
    assert not judge_gateway(reply, 7).alive


def test_gateway_is_not_alive_if_a_gateway_with_another_pid_answers_on_its_port():
    """A gateway that exits with 75 because an older gateway holds its port must not count as ready."""
    answer = {"status": "ok", "pid": 7, "engine": {"state": "ready"}}
    assert judge_gateway(Reply(200, answer), 7).ok
    other = judge_gateway(Reply(200, answer), 8)
    assert (other.ok, other.alive) == (False, False)
    assert "PID 7" in other.detail


def test_engine_status_has_the_fields_of_the_gateways_health_answer():
    engine = {"pid": 7, "state": "ready", "restarts": 3, "last_crash": {"cause": "killed"}}
    status = read_engine_status(Reply(200, {"status": "ok", "engine": engine, "models": {"loaded": ["a"]}}))
    assert (status.state, status.process_pid, status.restart_count) == (State.READY, 7, 3)
    assert status.extra["models"] == ["a"]


@pytest.mark.parametrize("body", [None, {}, {"engine": None}, {"engine": {"state": "odd", "pid": "x"}}])
def test_engine_status_from_an_invalid_health_answer_is_not_healthy(body):
    assert not read_engine_status(Reply(200, body)).healthy
