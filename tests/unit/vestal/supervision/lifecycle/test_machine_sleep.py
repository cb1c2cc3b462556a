"""What a child's lifecycle does when the machine has slept."""

from __future__ import annotations

from tests.unit.vestal.supervision.lifecycle.driver import (
    FAILED_PROBE,
    POLICY,
    ChildDriver,
    open_child,
    ready_child,
)
from vestal.supervision import BreakerState, State
from vestal.supervision.lifecycle.actions import Launch, Terminate
from vestal.supervision.lifecycle.inputs import HealthProbed, MachineWoke, Start


def test_failed_probes_from_before_a_machine_sleep_do_not_count():
    driver = ready_child()
    for _ in range(2):
        driver.send(HealthProbed(driver.child.run, FAILED_PROBE), 50)
    driver.send(MachineWoke(3600), 60)
    driver.send(HealthProbed(driver.child.run, FAILED_PROBE), 70)
    assert (driver.child.up, driver.child.failed_probes) == (True, 1)


def test_failed_probes_within_the_grace_period_after_a_machine_sleep_do_not_count():
    driver = ready_child().send(MachineWoke(3600), 60)
    for at in (60, 62, 64):
        driver.send(HealthProbed(driver.child.run, FAILED_PROBE), at)
    assert (driver.child.up, driver.child.failed_probes) == (True, 0)
    for at in (66, 67, 68):
        driver.send(HealthProbed(driver.child.run, FAILED_PROBE), at)
    assert driver.has_action(Terminate)


def test_machine_sleep_counts_as_open_time_of_the_breaker():
    driver = open_child()
    driver.send(MachineWoke(20), driver.child.breaker.until - 50)
    assert driver.child.state is State.OPEN
    assert driver.child.timer_at == driver.child.breaker.until == driver.now + 30
    driver.send(MachineWoke(3600))
    assert driver.child.timer_at == driver.now
    assert driver.fire_timer().has_action(Launch)
    assert driver.child.breaker.state is BreakerState.HALF_OPEN


def test_restarts_from_before_a_long_machine_sleep_no_longer_count_as_recent():
    driver = ready_child()
    for at in (20, 40, 60, 80):
        driver.exit(at=at).launch_and_ready()
    assert driver.child.intensity.times
    driver.send(MachineWoke(3600), 90)
    assert (driver.child.intensity.times, driver.child.backoff_attempt) == ((), 0)


def test_start_interrupted_by_a_machine_sleep_gets_its_full_timeout_again():
    driver = ChildDriver().send(Start()).launch().send(MachineWoke(600), 29)
    assert driver.child.timer_at == 29 + POLICY.start_timeout_s
