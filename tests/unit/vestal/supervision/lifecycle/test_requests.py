"""Requests to start, stop, restart, hold and release a child, in each of its states."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.vestal.supervision.lifecycle.driver import (
    FAILED_PROBE,
    OK,
    POLICY,
    ChildDriver,
    open_child,
    ready_child,
)
from vestal.supervision import BreakerState, ExitStatus, State
from vestal.supervision.lifecycle.actions import Kill, Launch, RestartSiblings, Terminate
from vestal.supervision.lifecycle.child_state import ActiveProbe, initial_state
from vestal.supervision.lifecycle.inputs import (
    HealthProbed,
    LaunchFailed,
    ReadyProbed,
    ReleaseHold,
    Restart,
    Start,
    Stop,
    StopAndHold,
    TimerFired,
)

# --- start ---


def test_start_request_launches_a_stopped_child_and_probes_whether_it_is_ready():
    driver = ChildDriver().send(Start())
    assert driver.has_action(Launch)
    assert driver.launch().child.active_probe is ActiveProbe.READY
    assert driver.send(ReadyProbed(1, OK)).child.state is State.READY
    assert driver.child.active_probe is ActiveProbe.HEALTH


def test_child_without_a_ready_probe_is_ready_as_soon_as_it_is_launched():
    driver = ChildDriver(initial_state(POLICY, has_ready_probe=False)).send(Start()).launch()
    assert driver.child.state is State.READY


def test_start_request_while_the_breaker_is_open_waits_unless_the_request_resets_the_breaker():
    driver = open_child().send(Stop()).send(Start())
    assert driver.child.state is State.OPEN
    assert driver.send(Restart()).child.state is State.OPEN
    assert driver.send(Start(reset=True)).has_action(Launch)
    assert driver.child.breaker.state is BreakerState.CLOSED


def test_start_request_for_a_stopping_child_launches_it_after_its_exit():
    driver = ready_child().send(Stop(), 20).send(Start())
    assert not driver.has_action(Launch)
    assert driver.exit(ExitStatus(signal=15)).has_action(Launch)


# --- stop ---


def test_stop_request_sends_sigterm_and_after_stop_timeout_s_sigkill():
    driver = ready_child().send(Stop(), 20)
    assert driver.has_action(Terminate)
    assert not driver.send(TimerFired(), 29.9).actions
    assert driver.send(TimerFired(), 30).has_action(Kill)
    assert driver.exit(ExitStatus(signal=9)).child.state is State.STOPPED


def test_stop_request_has_a_longer_timeout_than_the_termination_of_a_hung_child():
    policy = replace(POLICY, planned_stop_timeout_s=40)
    assert ready_child(policy).send(Stop(), 20).child.timer_at == 60
    driver = ready_child(policy)
    for _ in range(3):
        driver.send(HealthProbed(1, FAILED_PROBE), 20)
    assert driver.child.timer_at == 30


def test_stop_request_during_a_launch_terminates_the_launched_process():
    driver = ChildDriver().send(Start()).send(Stop())
    assert not driver.has_action(Terminate)
    assert driver.launch().has_action(Terminate)
    assert driver.exit().child.state is State.STOPPED


def test_stop_request_during_a_launch_that_fails_leaves_the_child_stopped():
    driver = ChildDriver().send(Start()).send(Stop()).send(LaunchFailed(1, "no"))
    assert driver.child.state is State.STOPPED


def test_stop_request_in_backoff_or_behind_an_open_breaker_stops_the_child_at_once():
    assert ready_child().exit().send(Stop()).child.state is State.STOPPED
    driver = open_child().send(Stop())
    assert driver.child.state is State.STOPPED
    assert driver.child.timer_at is None


def test_child_stopped_by_hand_is_not_restarted_until_a_start():
    driver = ready_child().send(Stop(), 20).exit()
    for received in (Restart(), ReleaseHold(), TimerFired(), Restart(reset=True)):
        assert not driver.send(received).has_action(Launch)
    assert driver.send(Stop("the supervisor stops", by_hand=False)).child.stopped_by_hand
    assert driver.send(Start()).has_action(Launch)


def test_exit_of_a_stopping_child_with_any_exit_code_leaves_it_stopped():
    driver = ready_child().send(Stop(), 20).exit(ExitStatus(code=78))
    assert driver.child.state is State.STOPPED


def test_process_that_survives_sigkill_is_reported_and_no_second_process_is_launched():
    driver = ready_child().send(Stop(), 20).fire_timer().fire_timer()
    assert driver.has_action(Kill)
    assert "does not end on SIGKILL" in driver.child.detail
    assert not driver.send(Start()).has_action(Launch)


# --- restart ---


def test_restart_request_during_a_stop_by_hand_does_not_undo_the_stop():
    assert ready_child().send(Stop(), 20).send(Restart()).exit().child.state is State.STOPPED


def test_restart_request_counts_neither_for_restart_intensity_nor_for_backoff():
    driver = ready_child()
    for n in range(20):
        driver.send(Restart(), n).exit(ExitStatus(signal=15)).launch_and_ready()
    assert driver.child.state is State.READY
    assert driver.child.restarts == 20
    assert not driver.child.intensity.times


def test_restart_request_in_backoff_waits_unless_it_resets_the_backoff():
    driver = ready_child().exit().send(Restart())
    assert driver.child.state is State.BACKOFF
    assert driver.send(Restart(reset=True)).has_action(Launch)


# --- hold ---


def test_dead_child_of_a_coupled_group_has_its_siblings_restarted_and_launches_when_released():
    driver = ChildDriver(initial_state(POLICY, coupled=True)).send(Start()).launch_and_ready().exit(at=20)
    assert driver.has_action(RestartSiblings)
    assert not driver.has_action(Launch)
    assert driver.send(ReleaseHold()).has_action(Launch)


def test_child_in_backoff_that_restarts_with_its_siblings_launches_only_after_its_turn_and_its_delay():
    driver = ChildDriver(initial_state(POLICY, coupled=True)).send(Start()).launch_and_ready().exit()
    assert driver.child.state is State.BACKOFF
    assert driver.send(ReleaseHold()).child.state is State.BACKOFF
    assert driver.fire_timer().has_action(Launch)


def test_running_child_stopped_by_a_hold_request_launches_again_when_released():
    driver = ready_child().send(StopAndHold("a died"), 20)
    assert driver.has_action(Terminate)
    driver.exit(ExitStatus(signal=15))
    assert driver.child.state is State.STOPPED
    assert driver.send(ReleaseHold()).has_action(Launch)
