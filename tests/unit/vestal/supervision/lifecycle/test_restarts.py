"""What follows when the process of a child dies, or cannot be launched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.vestal.supervision.lifecycle.driver import POLICY, ChildDriver, open_child, ready_child
from vestal.supervision import BreakerState, ExitStatus, RestartType, State
from vestal.supervision.lifecycle.actions import Emit, Launch
from vestal.supervision.lifecycle.child_state import initial_state
from vestal.supervision.lifecycle.inputs import LaunchFailed, Restart, Start, Stop


def test_child_that_dies_after_a_stable_run_is_launched_at_once_before_its_state_is_saved():
    driver = ready_child().exit(at=10)
    assert driver.child.state is State.STARTING
    actions = [action for action in driver.actions if not isinstance(action, Emit)]
    assert isinstance(actions[0], Launch)


def test_child_that_dies_after_short_runs_is_restarted_after_2_4_and_8_seconds():
    driver = ready_child()
    delays = []
    for _ in range(3):
        driver.exit()
        assert driver.child.state is State.BACKOFF
        delays.append((driver.child.timer_at or 0) - driver.now)
        driver.fire_timer().launch_and_ready()
    assert delays == [2, 4, 8]


def test_stable_run_of_a_child_resets_its_backoff():
    driver = ready_child().exit().fire_timer().launch_and_ready().exit().fire_timer().launch_and_ready()
    driver.exit(at=driver.now + 10)
    assert driver.child.state is State.STARTING
    driver.launch_and_ready().exit()
    assert driver.child.timer_at == driver.now + 2


def test_restarts_beyond_the_restart_intensity_limit_open_the_breaker_although_every_start_succeeded():
    driver = ready_child()
    for n in range(1, 6):
        driver.exit(at=10.0 * n).launch_and_ready()
    driver.exit(at=60)
    assert driver.child.state is State.OPEN
    assert driver.has_event("breaker_opened")
    assert driver.child.timer_at == 120


PRODUCTIVE = replace(POLICY, productive_weight=0.1)


@pytest.mark.parametrize(("every_s", "deaths"), [(25.0, 36), (1.5, 5)])
def test_child_that_did_useful_work_and_dies_repeatedly_is_restarted_at_once_each_time(
    every_s: float, deaths: int
):
    """An engine killed every 25 s for 15 minutes, though it worked, was once down for 51 % of the time."""
    driver = ready_child(PRODUCTIVE)
    for n in range(1, deaths + 1):
        driver.exit(at=every_s * n, productive=True)
        assert driver.child.state is State.STARTING
        driver.launch_and_ready()


def test_child_that_did_useful_work_may_restart_at_most_ten_times_as_often_as_others():
    driver = ready_child(PRODUCTIVE)
    for n in range(1, 51):
        driver.exit(at=1.0 * n, productive=True).launch_and_ready()
    driver.exit(at=51, productive=True)
    assert driver.child.state is State.OPEN


def test_child_that_does_no_useful_work_gets_no_more_restarts_than_the_intensity_allows():
    driver = ready_child(PRODUCTIVE)
    for n in range(1, 6):
        driver.exit(at=10.0 * n).launch_and_ready()
    driver.exit(at=60)
    assert driver.child.state is State.OPEN


def test_earlier_deaths_of_a_child_count_less_toward_its_restart_limit_after_a_run_with_useful_work():
    """Five engines are killed while each replays; the engine after them works, and is killed too."""
    driver = ready_child(PRODUCTIVE)
    for n in range(1, 6):
        driver.exit(at=10.0 * n).launch_and_ready()
    driver.exit(at=75, productive=True)
    assert driver.child.state is State.STARTING
    driver.launch_and_ready().exit(at=100, productive=True)
    assert driver.child.state is State.STARTING


def test_trial_start_that_does_useful_work_before_it_is_ready_closes_the_breaker():
    driver = open_child().fire_timer().launch()
    driver.exit(at=driver.now + 1, productive=True)
    assert driver.child.breaker.state is BreakerState.CLOSED
    assert driver.child.state is State.STARTING


def test_slow_failed_starts_open_the_breaker_although_they_stay_below_the_restart_intensity():
    """A start that takes 36 s to fail never reaches 5 restarts in 5 minutes."""
    driver = ChildDriver().send(Start()).launch().fire_timer().exit()  # not ready in time
    driver.fire_timer().launch().fire_timer().exit()
    driver.fire_timer().launch().fire_timer().exit()
    assert driver.child.state is State.OPEN


def test_failed_launch_of_a_child_counts_as_a_failed_start():
    driver = ChildDriver().send(Start())
    for _ in range(2):
        driver.send(LaunchFailed(driver.child.run, "the program x was not found")).fire_timer()
    driver.send(LaunchFailed(driver.child.run, "the program x was not found"))
    assert driver.child.state is State.OPEN
    assert driver.child.detail == "the program x was not found"


def test_open_restart_breaker_allows_one_trial_start_whose_success_closes_the_breaker():
    driver = open_child().fire_timer()
    assert driver.child.breaker.state is BreakerState.HALF_OPEN
    assert driver.has_action(Launch)
    driver.launch_and_ready()
    assert driver.has_event("breaker_closed")
    assert driver.child.breaker.state is BreakerState.CLOSED


def test_trial_start_that_dies_opens_the_breaker_for_twice_as_long():
    driver = open_child().fire_timer().launch().exit()
    assert driver.child.state is State.OPEN
    assert driver.child.timer_at == driver.now + 120


def test_trial_start_that_is_not_ready_in_time_opens_the_breaker_for_twice_as_long():
    driver = open_child().fire_timer().launch().fire_timer()
    assert driver.child.state is State.STOPPING
    assert driver.exit().child.timer_at == driver.now + 120


def test_status_detail_after_a_failed_start_is_the_exit_status_and_the_last_log_line():
    assert open_child().child.detail == "exit code 1: port 11435 is held by python3"


def test_child_that_exits_with_a_fatal_code_is_not_restarted_until_a_start_request():
    driver = ready_child().exit(ExitStatus(code=78), last_line="unknown key mlx.prot")
    assert driver.child.state is State.FAILED
    assert driver.has_event("child_gave_up")
    assert driver.child.detail == "exit code 78: unknown key mlx.prot"
    assert driver.child.timer_at is None
    assert driver.send(Start()).has_action(Launch)


def test_child_of_type_transient_is_restarted_unless_it_exits_with_code_0():
    transient = initial_state(POLICY, restart=RestartType.TRANSIENT)
    after = {
        status: ChildDriver(transient).send(Start()).launch_and_ready().exit(status, at=20).child.state
        for status in (ExitStatus(code=0), ExitStatus(code=1), ExitStatus())
    }
    assert after == {
        ExitStatus(code=0): State.STOPPED,
        ExitStatus(code=1): State.STARTING,
        ExitStatus(): State.STARTING,
    }


def test_child_of_type_temporary_is_never_restarted():
    temporary = initial_state(POLICY, restart=RestartType.TEMPORARY)
    driver = ChildDriver(temporary).send(Start()).launch_and_ready().exit(at=20)
    assert driver.child.state is State.STOPPED


def test_restart_after_sigkill_waits_for_memory_to_settle():
    settling = replace(POLICY, settle_after_kill_s=5)
    driver = ready_child(settling).exit(ExitStatus(signal=9), at=10)
    assert driver.child.state is State.BACKOFF
    assert driver.child.timer_at == 15
    assert ready_child(settling).exit(at=10).child.state is State.STARTING


def test_requested_start_after_sigkill_waits_for_memory_to_settle():
    driver = ready_child(replace(POLICY, settle_after_kill_s=5))
    driver.send(Stop()).fire_timer().exit(ExitStatus(signal=9))
    driver.send(Start())
    assert driver.child.state is State.BACKOFF
    assert driver.fire_timer().has_action(Launch)


def test_status_detail_of_a_child_describes_only_its_present_state():
    """Earlier, a status explained the death of the last process next to the state of a new one."""
    driver = ready_child().exit(ExitStatus(code=1))
    assert (driver.child.state, driver.child.detail) == (State.BACKOFF, "exit code 1")
    driver.fire_timer()
    assert (driver.child.state, driver.child.detail) == (State.STARTING, "")
    assert driver.child.last_end == "exit code 1"
    driver.launch_and_ready().send(Stop("by hand"))
    assert (driver.child.state, driver.child.detail) == (State.STOPPING, "")
    driver.exit(ExitStatus(code=0))
    assert (driver.child.state, driver.child.detail, driver.child.last_end) == (State.STOPPED, "", "")
    assert driver.child.restarts == 0, "counted anew from here"


def test_stop_of_a_child_with_an_open_breaker_removes_the_breakers_reason_from_its_status_detail():
    driver = open_child()
    assert "port 11435 is held" in driver.child.detail
    driver.send(Stop("by hand"))
    assert (driver.child.state, driver.child.detail, driver.child.last_end) == (State.STOPPED, "", "")


def test_exit_event_of_a_child_says_whether_the_exit_was_requested():
    def planned(driver: ChildDriver) -> object:
        (exited,) = [a for a in driver.actions if isinstance(a, Emit) and a.event == "child_exited"]
        return exited.fields["planned"]

    assert planned(ready_child().exit()) is False
    assert planned(ready_child().send(Stop("by hand")).exit(ExitStatus(signal=15))) is True
    assert planned(ready_child().send(Restart("by hand")).exit(ExitStatus(signal=15))) is True
