"""Liveness: the events of an engine show whether it is loading, busy, idle or hung."""

from __future__ import annotations

import pytest

from mlx_server import protocol
from mlx_server.gateway.engine_process.liveness import LOADING_TIMEOUT_FACTOR, EngineLiveness
from vestal.supervision import ProbeResult, State

TIMEOUT_S = 30.0
PROBE_INTERVAL_S = 30.0


def _alive(steps: int, working: bool = True, loading: str | None = None) -> protocol.Alive:
    return protocol.Alive(steps, working, 0, (), loading)


@pytest.fixture
def liveness() -> EngineLiveness:
    """The liveness of an engine that became ready at time 0."""
    liveness = EngineLiveness(TIMEOUT_S, 0.0, PROBE_INTERVAL_S)
    liveness.on_event(protocol.Ready(()), 0.0)
    return liveness


def test_idle_engine_that_sends_heartbeats_counts_as_ready(liveness):
    liveness.on_event(_alive(1, working=False), 1000.0)
    result = liveness.judge(0, 1001.0)
    assert (result.ok, result.state) == (True, State.READY)


def test_engine_that_keeps_making_steps_counts_as_busy_and_never_as_hung(liveness):
    for second in range(100):
        liveness.on_event(_alive(second), float(second))
    result = liveness.judge(1, 100.0)
    assert (result.ok, result.state) == (True, State.BUSY)


def test_working_engine_without_progress_counts_as_hung(liveness):
    for second in range(100):
        liveness.on_event(_alive(7), float(second))
    result = liveness.judge(3, 99.0)
    assert not result.ok
    assert result.state is None
    assert "3 requests without progress" in result.detail


def test_silent_engine_counts_as_hung_even_when_idle(liveness):
    liveness.on_event(_alive(1, working=False), 10.0)
    assert liveness.judge(0, 10.0 + TIMEOUT_S).ok
    assert "no sign of life" in liveness.judge(0, 11.0 + TIMEOUT_S).detail


def test_engine_that_never_starts_a_sent_request_counts_as_hung(liveness):
    liveness.work_sent(was_idle=True, now=100.0)
    for second in range(100, 140):
        liveness.on_event(_alive(5, working=False), float(second))
    assert not liveness.judge(1, 139.0).ok


def test_first_request_after_idleness_has_the_whole_progress_timeout(liveness):
    liveness.on_event(_alive(5, working=False), 999.0)
    liveness.work_sent(was_idle=True, now=1000.0)
    liveness.on_event(_alive(5, working=False), 1020.0)
    assert liveness.judge(1, 1020.0).ok


def _load(liveness: EngineLiveness, step_s: float, steps: int) -> float:
    """Report that model `big` is loaded in steps of equal length, and return the time of the last."""
    for number in range(steps):
        liveness.on_event(protocol.Loading("big", number / 100), number * step_s)
    return (steps - 1) * step_s


def _hang(liveness: EngineLiveness, since: float, for_s: float) -> ProbeResult:
    """Report each second that the engine is alive without progress; return the judgement at the end."""
    for second in range(int(for_s) + 1):
        liveness.on_event(_alive(5, loading="big"), since + second)
    return liveness.judge(1, since + for_s)


def test_engine_that_loads_a_model_slowly_gets_a_longer_progress_timeout(liveness):
    stopped_at = _load(liveness, step_s=25.0, steps=4)
    liveness.on_event(_alive(5, loading="big"), stopped_at)
    assert _hang(liveness, stopped_at, TIMEOUT_S + 40).ok
    assert liveness.loading == "big"
    assert "loading big" in _hang(liveness, stopped_at, TIMEOUT_S + 50).detail


def test_engine_stalled_in_a_model_load_with_fast_earlier_steps_counts_as_hung_without_extra_time(liveness):
    """A chat template that never ended held the MLX thread; during a load it took 120 s to notice that."""
    stopped_at = _load(liveness, step_s=0.2, steps=20)
    liveness.on_event(_alive(5, loading="big"), stopped_at)
    assert _hang(liveness, stopped_at, TIMEOUT_S - 1).ok
    assert "loading big" in _hang(liveness, stopped_at, TIMEOUT_S + 1).detail


def test_engine_that_has_only_begun_a_model_load_has_the_usual_progress_timeout(liveness):
    liveness.on_event(protocol.Loading("big", 0.0), 0.0)
    liveness.on_event(_alive(5, loading="big"), 0.0)
    assert "loading big" in _hang(liveness, 0.0, TIMEOUT_S + 1).detail


def test_progress_timeout_during_a_model_load_is_bounded_and_returns_to_usual_afterwards(liveness):
    stopped_at = _load(liveness, step_s=100.0, steps=3)
    liveness.on_event(_alive(5, loading="big"), stopped_at)
    assert _hang(liveness, stopped_at, TIMEOUT_S * LOADING_TIMEOUT_FACTOR - 1).ok
    assert not _hang(liveness, stopped_at, TIMEOUT_S * LOADING_TIMEOUT_FACTOR + 1).ok
    liveness.on_event(protocol.Loaded("big", 1, 300.0), 400.0)
    liveness.on_event(_alive(6), 400.0)
    for second in range(32):
        liveness.on_event(_alive(6), 400.0 + second)
        result = liveness.judge(1, 400.0 + second)
    assert not result.ok


def test_time_in_which_the_gateway_itself_was_blocked_does_not_count_toward_the_engine_timeouts(liveness):
    """Bodies of 30 MB once blocked the gateway's event loop for half a minute, so that it read no event."""
    for second in range(10):
        liveness.on_event(_alive(7), float(second))
        assert liveness.judge(1, float(second)).ok
    assert liveness.judge(1, 49.0).ok, "40 s without an event, and none could be read"
    for second in range(50, 69):
        liveness.on_event(_alive(7), float(second))
        assert liveness.judge(1, float(second)).ok, second
    for second in range(69, 72):
        liveness.on_event(_alive(7), float(second))
        result = liveness.judge(1, float(second))
    assert "without progress for 31 s" in result.detail, "its own time without progress counts"


def test_progress_of_a_starting_engine_grows_as_its_model_loads():
    liveness = EngineLiveness(TIMEOUT_S, 0.0)
    first = liveness.judge(0, 1.0)
    liveness.on_event(protocol.Loading("chat", 0.5), 2.0)
    second = liveness.judge(0, 3.0)
    assert first.state is second.state is State.STARTING
    assert not first.ready
    assert first.progress is not None and second.progress is not None
    assert second.progress > first.progress


def test_engine_probe_is_due_after_the_idle_interval_unless_an_earlier_probe_is_still_unanswered(liveness):
    liveness.on_event(_alive(1, working=False), 1.0)
    assert not liveness.probe_due(0, 20.0)
    assert liveness.probe_due(0, 31.0)
    assert not liveness.probe_due(0, 100.0), "the first probe is not answered yet"
    liveness.on_event(protocol.Probed("probe", True), 101.0)
    assert not liveness.probe_due(0, 110.0)
    assert liveness.probe_due(0, 131.5)


def test_engine_probe_is_never_due_while_the_engine_has_work(liveness):
    liveness.on_event(_alive(1, working=True), 40.0)
    assert not liveness.probe_due(0, 100.0)
    assert not liveness.probe_due(1, 100.0)


def test_engine_probe_is_due_at_once_after_the_machine_woke(liveness):
    assert not liveness.probe_due(0, 1.0)
    liveness.machine_woke(1.0)
    assert liveness.probe_due(0, 1.0)
    assert not liveness.probe_due(0, 2.0)
    liveness.on_event(protocol.Probed("probe", True), 2.0)
    assert not liveness.probe_due(0, 3.0)


def test_engine_that_leaves_a_probe_unanswered_counts_as_hung_even_if_it_still_sends_heartbeats(liveness):
    assert liveness.probe_due(0, 30.0)
    for second in range(30, 75):
        liveness.on_event(_alive(1, working=False), float(second))
    assert liveness.judge(0, 59.0).alive
    assert not liveness.judge(0, 61.0).alive


def test_engine_that_answers_a_probe_wrongly_is_not_alive(liveness):
    assert liveness.probe_due(0, 30.0)
    liveness.on_event(protocol.Probed("probe", False, "a token's logits spread over nan"), 30.1)
    result = liveness.judge(0, 30.2)
    assert not result.alive and "logits spread over nan" in result.detail
