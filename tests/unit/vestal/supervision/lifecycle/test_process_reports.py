"""Results of probes, processes found after a supervisor's death, and reports that come late."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.vestal.supervision.lifecycle.driver import (
    CRASH,
    FAILED_PROBE,
    OK,
    POLICY,
    ChildDriver,
    open_child,
    ready_child,
)
from vestal.supervision import BreakerState, ExitStatus, ProbeResult, State
from vestal.supervision.lifecycle.actions import Kill, Launch, Terminate
from vestal.supervision.lifecycle.child_state import initial_state
from vestal.supervision.lifecycle.inputs import (
    Exited,
    HealthProbed,
    Launched,
    ProcessFound,
    ReadyProbed,
    Start,
    TimerFired,
)


def loading(progress: float | None = None) -> ProbeResult:
    return ProbeResult(False, "loading", State.STARTING, progress)


def test_ready_probe_that_reports_loading_progress_extends_the_start_timeout():
    """llama-swap issue 92: with a start timeout shorter than the model's load, the server never came up."""
    driver = ChildDriver().send(Start()).launch()
    for at in range(20, 200, 20):
        driver.send(ReadyProbed(1, loading()), at).send(TimerFired(), at + 10)
    assert driver.child.state is State.STARTING


def test_ready_probe_that_reports_no_progress_does_not_extend_the_start_timeout():
    driver = ChildDriver().send(Start()).launch()
    driver.send(ReadyProbed(1, loading(0.4)), 20).send(ReadyProbed(1, loading(0.4)), 40)
    assert driver.child.timer_at == 50
    assert driver.fire_timer().has_event("child_start_timed_out")
    assert driver.has_action(Terminate)


def test_third_failed_health_probe_in_a_row_restarts_the_child():
    driver = ready_child()
    failed = HealthProbed(1, ProbeResult(False, "no answer within 5 s"))
    for _ in range(2):
        assert not driver.send(failed, 20).actions
    driver.send(failed)
    assert driver.has_event("health_failed")
    assert driver.has_action(Terminate)
    assert driver.fire_timer().has_action(Kill)
    assert driver.exit(ExitStatus(signal=9)).has_action(Launch)


def test_health_probe_that_finds_the_child_hung_restarts_it_at_once():
    driver = ready_child().send(HealthProbed(1, ProbeResult(False, "suspended", answered=False, hung=True)))
    assert driver.has_event("health_failed")
    assert driver.child.cause == "it hangs: suspended"
    assert driver.has_action(Terminate)


def test_unanswered_health_probes_are_counted_without_a_restart_until_the_child_is_hung():
    driver = ready_child()
    early = HealthProbed(1, ProbeResult(False, "no answer", answered=False, hung=False))
    for count in range(1, 6):
        assert not driver.send(early).actions
        assert driver.child.failed_probes == count


def test_child_that_works_without_answering_is_busy_and_reported_once():
    """The gateway, busy with a request of 30 MB, was once ended as hung, and all answers were lost."""
    driver = ready_child()
    busy = HealthProbed(1, ProbeResult(False, "busy: it works", State.BUSY, answered=False, hung=False))
    assert driver.send(busy).has_event("health_overdue")
    assert driver.child.state is State.BUSY
    assert driver.child.detail == "busy: it works"
    assert not driver.send(busy).actions
    driver.send(HealthProbed(1, OK))
    assert driver.child.state is State.READY
    assert driver.send(busy).has_event("health_overdue")


def test_health_probe_answered_with_busy_or_loading_resets_the_count_of_failures():
    driver = ready_child()
    failed = HealthProbed(1, FAILED_PROBE)
    driver.send(failed).send(failed).send(HealthProbed(1, ProbeResult(False, "prefill", State.BUSY)))
    assert driver.child.failed_probes == 0
    assert driver.child.state is State.BUSY
    driver.send(HealthProbed(1, loading()))
    assert driver.child.state is State.BUSY
    assert driver.send(HealthProbed(1, OK)).child.state is State.READY


def test_late_reports_about_an_earlier_process_of_a_child_change_nothing():
    driver = ready_child().exit(at=20).launch()
    before = driver.child
    for late in (
        Exited(1, CRASH),
        ReadyProbed(1, OK),
        HealthProbed(1, FAILED_PROBE),
        Launched(1, 5),
    ):
        driver.send(late)
        assert driver.child == before
        assert not driver.actions


def test_process_adopted_by_a_new_supervisor_keeps_its_start_time_and_is_ready_after_one_good_probe():
    driver = ChildDriver()
    driver.now = 100
    driver.send(ProcessFound(77, age_s=50))
    assert driver.child.pid == 77
    assert driver.child.started_at == 50
    assert driver.send(ReadyProbed(driver.child.run, OK)).child.state is State.READY


def test_running_process_that_a_new_supervisor_cannot_adopt_is_terminated_before_a_launch():
    driver = ChildDriver().send(ProcessFound(77, adopt=False))
    assert driver.has_action(Terminate)
    assert not driver.has_action(Launch)
    assert driver.exit(ExitStatus()).has_action(Launch)


def test_process_found_running_although_a_user_stopped_its_child_is_terminated_and_not_restarted():
    driver = ChildDriver(replace(initial_state(POLICY), stopped_by_hand=True)).send(ProcessFound(77))
    assert driver.has_action(Terminate)
    assert driver.exit(ExitStatus()).child.state is State.STOPPED


def test_running_process_found_while_the_breaker_is_open_counts_as_the_trial_start():
    driver = open_child().send(ProcessFound(77))
    assert driver.child.breaker.state is BreakerState.HALF_OPEN
    driver.send(ReadyProbed(driver.child.run, OK))
    assert driver.child.breaker.state is BreakerState.CLOSED
