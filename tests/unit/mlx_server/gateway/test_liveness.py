"""Four states told apart: loading, busy, wedged, idle; dead is the supervisor's to see."""

from __future__ import annotations

import pytest

from mlx_server import protocol
from mlx_server.gateway.engine_process.liveness import LOADING_PATIENCE, EngineLiveness
from mlx_server.gateway.requests.loaded_models import ModelsToReload
from vestal.supervision import State

TIMEOUT_S = 30.0


def _alive(steps: int, working: bool = True, loading: str | None = None) -> protocol.Alive:
    return protocol.Alive(steps, working, 0, (), loading)


@pytest.fixture
def pulse() -> EngineLiveness:
    pulse = EngineLiveness(TIMEOUT_S, 0.0)
    pulse.on_event(protocol.Ready(()), 0.0)
    return pulse


def test_engine_that_is_idle_and_says_so_is_ready(pulse):
    pulse.on_event(_alive(1, working=False), 1000.0)
    result = pulse.judge(0, 1001.0)
    assert (result.ok, result.state) == (True, State.READY)


def test_engine_that_makes_steps_is_busy_however_long_a_request_takes(pulse):
    for second in range(100):
        pulse.on_event(_alive(second), float(second))
    result = pulse.judge(1, 100.0)
    assert (result.ok, result.state) == (True, State.BUSY)


def test_engine_that_says_alive_without_progress_is_wedged(pulse):
    for second in range(100):
        pulse.on_event(_alive(7), float(second))
    result = pulse.judge(3, 99.0)
    assert not result.ok
    assert result.state is None
    assert "3 requests without progress" in result.detail


def test_engine_that_says_nothing_is_wedged_also_when_idle(pulse):
    pulse.on_event(_alive(1, working=False), 10.0)
    assert pulse.judge(0, 10.0 + TIMEOUT_S).ok
    assert "no sign of life" in pulse.judge(0, 11.0 + TIMEOUT_S).detail


def test_engine_that_forgot_our_request_is_wedged(pulse):
    pulse.work_sent(was_idle=True, now=100.0)
    for second in range(100, 140):
        pulse.on_event(_alive(5, working=False), float(second))
    assert not pulse.judge(1, 139.0).ok


def test_first_request_after_a_long_rest_has_the_whole_patience(pulse):
    pulse.on_event(_alive(5, working=False), 999.0)
    pulse.work_sent(was_idle=True, now=1000.0)
    pulse.on_event(_alive(5, working=False), 1020.0)
    assert pulse.judge(1, 1020.0).ok


def test_engine_that_loads_a_model_is_given_longer(pulse):
    for second in range(200):
        pulse.on_event(_alive(5, loading="big"), float(second))
    assert pulse.judge(1, TIMEOUT_S + 60).ok
    assert pulse.loading == "big"
    assert "loading big" in pulse.judge(1, TIMEOUT_S * LOADING_PATIENCE + 80).detail


def test_engine_that_starts_tells_its_progress():
    pulse = EngineLiveness(TIMEOUT_S, 0.0)
    first = pulse.judge(0, 1.0)
    pulse.on_event(protocol.Loading("chat", 0.5), 2.0)
    second = pulse.judge(0, 3.0)
    assert first.state is second.state is State.STARTING
    assert not first.ready
    assert first.progress is not None and second.progress is not None
    assert second.progress > first.progress


def _held(name: str, left_s: float | None) -> protocol.LoadedModelReport:
    return protocol.LoadedModelReport(name, "generate", 1, 1, left_s)


def test_models_of_a_lost_engine_stay_wanted_with_the_rest_of_their_time():
    models = ModelsToReload()
    models.on_event(protocol.Alive(0, False, 0, (_held("kept", None), _held("timed", 42.0))))
    models.engine_lost()
    assert models.names == []
    assert models.to_reload(()) == [("kept", -1.0), ("timed", 42.0)]
    assert models.to_reload(["kept"]) == [("timed", 42.0)]


def test_model_that_was_unloaded_is_not_wanted():
    models = ModelsToReload()
    models.on_event(protocol.Loaded("a", 1, 0.1))
    models.on_event(protocol.Ready(("b",)))
    models.on_event(protocol.Unloaded("a"))
    models.forget("b")
    assert models.to_reload(()) == []


def _ready(interval_s: float = 30.0) -> EngineLiveness:
    pulse = EngineLiveness(30.0, 0.0, interval_s)
    pulse.on_event(protocol.Ready(()), 0.0)
    return pulse


def _says_alive(pulse: EngineLiveness, now: float, working: bool = False) -> None:
    pulse.on_event(protocol.Alive(1, working, 0), now)


def test_probe_due_when_idle_for_the_interval_and_only_once_at_a_time():
    pulse = _ready()
    _says_alive(pulse, 1.0)
    assert not pulse.probe_due(0, 20.0)
    assert pulse.probe_due(0, 31.0)
    assert not pulse.probe_due(0, 100.0), "it has been asked"
    pulse.on_event(protocol.Probed("probe", True), 101.0)
    assert not pulse.probe_due(0, 110.0)
    assert pulse.probe_due(0, 131.5)


def test_probe_is_not_due_while_the_engine_has_work():
    pulse = _ready()
    _says_alive(pulse, 40.0, working=True)
    assert not pulse.probe_due(0, 100.0)
    assert not pulse.probe_due(1, 100.0)


def test_judge_when_a_probe_is_not_answered_is_wedged_though_it_says_alive():
    pulse = _ready()
    assert pulse.probe_due(0, 30.0)
    for second in range(30, 75):
        _says_alive(pulse, float(second))
    assert pulse.judge(0, 59.0).alive
    assert not pulse.judge(0, 61.0).alive


def test_judge_when_a_probe_gives_no_sense_is_down():
    pulse = _ready()
    assert pulse.probe_due(0, 30.0)
    pulse.on_event(protocol.Probed("probe", False, "a token's logits spread over nan"), 30.1)
    result = pulse.judge(0, 30.2)
    assert not result.alive and "logits spread over nan" in result.detail


def test_engine_is_asked_for_a_token_as_soon_as_the_machine_wakes():
    pulse = EngineLiveness(TIMEOUT_S, 0.0, probe_interval_s=30)
    pulse.on_event(protocol.Ready(()), 0.0)
    assert not pulse.probe_due(0, 1.0)
    pulse.woke(1.0)
    assert pulse.probe_due(0, 1.0)
    assert not pulse.probe_due(0, 2.0)
    pulse.on_event(protocol.Probed("probe", True), 2.0)
    assert not pulse.probe_due(0, 3.0)
